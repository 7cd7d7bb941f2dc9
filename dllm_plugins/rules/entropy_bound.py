"""Commit as many positions as a bound on their joint entropy allows (arXiv 2505.24857)."""

from typing import Any
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.history import committed_meanwhile

_LAST = 1e30


class EntropyBoundSettings(RuleSettings):
    """Parameters of the rule."""

    gamma: float = Field(0.1, ge=0.0, allow_inf_nan=False, description="nats; 0 commits one uncertain token a pass")
    order: Literal["entropy", "probability"] = Field(
        "entropy", description="what is committed first: what has the least entropy, or the most probable token"
    )


class EntropyBoundRule(RuleDefaults):
    """Commit the first k positions in order, k the largest with sum H - max H <= gamma.

    That difference bounds the divergence of tokens drawn independently from tokens drawn one
    after the other. It counts all tokens of a pass: of one whose entropy is not known (the
    frontier's) it assumes that it is the largest, which can only make the bound tighter.
    """

    name = "entropy_bound"
    options: frozenset[str] = frozenset()
    needs = frozenset({"entropy"})
    settings = EntropyBoundSettings
    summary = "the k surest positions, k the largest with sum H - max H <= `gamma` (arXiv 2505.24857)"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        gamma = torch.tensor([item.gamma for item in own], dtype=torch.float64)[:, None]
        by_entropy = torch.tensor([item.order == "entropy" for item in own])[:, None]
        # A token of probability 0 is one that the engine wants to be drawn again.
        hopeless = ~view.open | (view.probability <= 0)
        entropy = view.entropy.double()
        key = torch.where(by_entropy, entropy, -view.probability.double())
        key = key.masked_fill(hopeless, _LAST).masked_fill(~view.open, torch.inf)
        order = key.argsort(dim=-1, stable=True)
        ranked = entropy.masked_fill(hopeless, torch.inf).gather(1, order)
        spent = committed_meanwhile(view)
        before = entropy.where(spent, 0.0)
        unknown = (view.committed_now - spent.sum(-1) > 0)[:, None]
        largest = torch.maximum(before.amax(-1, keepdim=True), ranked.cummax(-1).values)
        total = before.sum(-1, keepdim=True) + ranked.cumsum(-1)
        fits = torch.where(unknown, total, total - largest) <= gamma
        alone = (view.committed_now == 0) & ~fits.any(-1)
        fits[:, 0] |= alone
        return view.open & torch.zeros_like(view.open).scatter(1, order, fits), state
