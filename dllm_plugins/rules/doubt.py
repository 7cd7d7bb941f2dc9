"""Reopen tokens that have become improbable.

The measure is self-planning's of P2 (arXiv 2502.03540): the denoiser's own probability of a
token it sees. The threshold and the limits are ours.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import revocation_parameters
from dllm_plugins.rules.history import recalled


class DoubtSettings(RuleSettings):
    """Parameters of the rule."""

    threshold: float = Field(0.1, gt=0.0, le=1.0, description="reopen what is less probable than this by now")
    most: int = Field(1, ge=1, le=1024, description="most positions reopened in a pass, the least probable first")
    times: int = Field(1, ge=1, le=64, description="how often one position is reopened, so that decoding ends")


@dataclass(frozen=True)
class _Reopened:
    """How often: position int64 [R, B], times int64 [R, B]."""

    position: Tensor
    times: Tensor


class DoubtRule:
    """The least probable committed tokens below the threshold, each position a few times only."""

    name = "doubt"
    summary = (
        "committed tokens less probable by now than `threshold`, at most `most` a pass and a position `times` times; "
        "the measure is P2 self-planning's (arXiv 2502.03540), the limits are ours"
    )
    needs = frozenset({"held"})
    settings: type[RuleSettings] = DoubtSettings
    replaces = False

    def revoke(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.RevocationRule`."""
        own = [revocation_parameters(DoubtSettings, config, self.name) for config in configs]
        times = torch.zeros_like(view.position)
        if state is not None:
            known, before = recalled(state.position, view.position, state.times)
            times = before.where(known, 0)
        allowed = times < torch.tensor([item.times for item in own])[:, None]
        level = torch.tensor([item.threshold for item in own], dtype=view.held.dtype)[:, None]
        doubtful = view.committed & allowed & (view.held < level)
        chosen = most_probable(-view.held, doubtful, torch.tensor([item.most for item in own]))
        return chosen, _Reopened(view.position, times + chosen)
