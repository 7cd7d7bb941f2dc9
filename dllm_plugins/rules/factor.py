"""Commit as many positions as their joint confidence allows (Fast-dLLM, arXiv 2505.22618)."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import most_probable

DEFAULT_FACTOR = 1.0


class FactorRule:
    """Commit the largest n for which the n-th most probable position has c_n >= 1 - factor / (n + 1)."""

    name = "factor"
    options = frozenset({"factor"})
    summary = "the most probable n with c_n >= 1 - factor / (n + 1) (default factor 1; arXiv 2505.22618)"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        factors = [DEFAULT_FACTOR if c.factor is None else c.factor for c in configs]
        ranked = view.probability.masked_fill(~view.open, -1.0).sort(dim=-1, descending=True, stable=True).values
        position = torch.arange(1, ranked.shape[-1] + 1) + view.committed_now[:, None]
        needed = 1 - torch.tensor(factors, dtype=ranked.dtype)[:, None] / (position + 1)
        fits = (ranked >= needed) & (ranked >= 0)
        numbers = torch.arange(1, ranked.shape[-1] + 1).expand_as(fits)
        count = (numbers * fits).amax(dim=-1)
        count = torch.where((view.committed_now == 0) & (count == 0), 1, count)
        return most_probable(view.probability, view.open, count), state
