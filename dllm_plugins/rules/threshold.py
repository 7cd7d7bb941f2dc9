"""Commit every position that is probable enough (Fast-dLLM, arXiv 2505.22618)."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import most_probable

DEFAULT_THRESHOLD = 0.9


class ThresholdRule:
    """Commit where probability > threshold; if nothing was committed yet, the most probable one."""

    name = "threshold"
    options = frozenset({"threshold"})
    summary = "every position more probable than `threshold` (default 0.9), at least one a pass (arXiv 2505.22618)"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        levels = [DEFAULT_THRESHOLD if c.threshold is None else c.threshold for c in configs]
        level = torch.tensor(levels, dtype=view.probability.dtype)
        sure = view.open & (view.probability > level[:, None])
        first = view.committed_now == 0
        if not bool(first.any()):
            return sure, state
        none_yet = first & ~sure.any(dim=-1)
        return sure | most_probable(view.probability, view.open, none_yet.long()), state
