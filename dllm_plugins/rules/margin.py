"""The positions where the first token leads the second by most (top-k margin, arXiv 2502.06768)."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.quota import row_quotas


class MarginRule(RuleDefaults):
    """The quota of the pass goes to the largest leads; every lead above the threshold commits, too."""

    name = "margin"
    options = frozenset({"steps", "threshold"})
    needs = frozenset({"margin"})
    summary = (
        "block_length / `steps` positions a pass, the largest lead of the first token over the second first, "
        "and every lead above `threshold`, if given (arXiv 2502.06768)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        levels = [torch.inf if config.threshold is None else config.threshold for config in configs]
        # A token of probability 0 is one that the engine wants to be drawn again.
        lead = view.margin.masked_fill(view.probability <= 0, -1.0)
        clear = view.open & (lead > torch.tensor(levels, dtype=lead.dtype)[:, None])
        return clear | most_probable(lead, view.open, row_quotas(view, configs)), state
