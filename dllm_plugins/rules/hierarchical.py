"""Divide and conquer: the best position of every run of open ones (dInfer, arXiv 2510.08666).

Source: inclusionAI/dInfer fce4e32 `HierarchyDecoder` in `python/dinfer/decoding/parallel_strategy.py`.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.history import committed_meanwhile
from dllm_plugins.rules.history import is_run_start


class HierarchicalSettings(RuleSettings):
    """Parameters of the rule."""

    low_threshold: float = Field(
        0.4, ge=0.0, le=1.0, description="the best position of a run commits if it is more probable than this"
    )


class HierarchicalRule(RuleDefaults):
    """Commit the best position of each run of open ones, and what is above the threshold, if one is given.

    Neighbours, which depend on each other most, wait for each other, and runs halve: a block
    takes about log2 of its length passes. If no run has a position above the low threshold,
    the best of all commits. Of equally probable ones the leftmost is the best.
    """

    name = "hierarchical"
    options = frozenset({"threshold"})
    settings = HierarchicalSettings
    summary = (
        "the best position of each run of open ones if above `low_threshold`, and all above `threshold`, if given; "
        "at least one a pass (dInfer, arXiv 2510.08666)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        dtype = view.probability.dtype
        low = torch.tensor([item.low_threshold for item in own], dtype=dtype)[:, None]
        levels = [torch.inf if config.threshold is None else config.threshold for config in configs]
        high = torch.tensor(levels, dtype=dtype)[:, None]
        sure = view.probability.masked_fill(~view.open, -1.0)
        chosen = (_best_of_runs(view, sure) & (sure > low)) | (view.open & (sure > high))
        none_yet = (view.committed_now == 0) & ~chosen.any(-1)
        return chosen | most_probable(view.probability, view.open, none_yet.long()), state


def _best_of_runs(view: CanvasView, sure: Tensor) -> Tensor:
    """The best open position of each run, bool [R, B]; runs as they were when the pass began."""
    meanwhile = committed_meanwhile(view)
    inside = view.open | meanwhile
    number = is_run_start(inside, view.position).long().cumsum(1) * inside
    # Slot 0 is for what belongs to no run. A run that had its turn in this pass has no other.
    runs, width = sure.new_full((len(sure), sure.shape[1] + 1), -1.0), torch.arange(sure.shape[1])
    best = runs.scatter_reduce(1, number, sure, "amax")
    best = best.scatter_reduce(1, number, torch.where(meanwhile, torch.inf, -1.0).to(best.dtype), "amax")
    is_best = view.open & (sure == best.gather(1, number))
    first = torch.full_like(runs, sure.shape[1], dtype=torch.int64)
    first = first.scatter_reduce(1, number, width.expand_as(number).where(is_best, sure.shape[1]), "amin")
    return is_best & (width == first.gather(1, number))
