"""Tokens earn credit for being predicted again and again (CreditDecoding, arXiv 2510.06133).

Source of the defaults: inclusionAI/dInfer fce4e32 `python/dinfer/decoding/parallel_strategy.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.history import recalled
from dllm_plugins.rules.threshold import ThresholdRule


class CreditSettings(RuleSettings):
    """Parameters of the rule."""

    alpha: float = Field(0.7, ge=0.0, allow_inf_nan=False, description="what credit weighs: alpha * log(1 + credit)")
    gamma: float = Field(0.2, ge=0.0, allow_inf_nan=False, description="a pass earns probability^gamma")
    beta: float = Field(0.8, ge=0.0, le=1.0, description="what is left of credit after a pass")


@dataclass(frozen=True)
class _Credit:
    """What tokens have earned.

    :param position: int64 [R, B].
    :param step: int64 [R, B], the pass that paid last.
    :param earned: float32 [R, B, V], with that pass.
    :param before: float32 [R, B, V], without it, but with what time took by then.
    """

    position: Tensor
    step: Tensor
    earned: Tensor
    before: Tensor


class CreditRule(RuleDefaults):
    """The threshold rule on logits + alpha * log(1 + C); C <- beta * C + p^gamma at the likeliest token.

    Tokens are drawn from the fused logits, too.
    """

    name = "credit"
    options = frozenset({"threshold"})
    settings = CreditSettings
    summary = (
        "the threshold rule (default 0.9) on logits to which the likeliest tokens of earlier passes are added: "
        "alpha * log(1 + credit) (CreditDecoding, arXiv 2510.06133)"
    )

    def rescore(
        self, logits: Tensor, position: Tensor, step: int, config: SamplingConfig, state: Any
    ) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.RuleDefaults`."""
        own = parameters(self.settings, config, self.name)
        credit = _with_slots(state, position, logits)
        index = (position[:, None] == credit.position[0][None]).int().argmax(-1)
        last = credit.step[0, index]
        elapsed = torch.where(last >= 0, step - last, 0).to(logits.device)
        past, earned = credit.before[0, index.to(logits.device)], credit.earned[0, index.to(logits.device)]
        faded = torch.where((elapsed > 0)[:, None], earned * (own.beta ** elapsed.float())[:, None], past)
        best, token = torch.softmax(logits.float(), dim=-1).max(dim=-1)
        paid = faded.scatter_add(1, token[:, None], best.pow(own.gamma)[:, None])
        fused = logits + (own.alpha * torch.log1p(paid)).to(logits.dtype)
        where = index.to(logits.device)
        return fused, _Credit(
            credit.position,
            credit.step.index_copy(1, index, torch.full((1, len(index)), step)),
            credit.earned.index_copy(1, where, paid[None]),
            credit.before.index_copy(1, where, faded[None]),
        )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        decision, _ = ThresholdRule().decide(view, configs, None)
        return decision, state


def _with_slots(state: _Credit | None, position: Tensor, logits: Tensor) -> _Credit:
    """The credit of one row with a slot for every one of its positions [N]; forgotten ones make room."""
    if state is not None and bool(torch.isin(position, state.position).all()):
        return state
    new = position[None]
    empty = logits.new_zeros(1, len(position), logits.shape[-1], dtype=torch.float32)
    if state is None:
        return _Credit(new, torch.full_like(new, -1), empty, empty)
    known, step, earned, before = recalled(state.position, new, state.step, state.earned, state.before)
    there = known[..., None].to(logits.device)
    return _Credit(new, step.where(known, -1), earned.where(there, empty), before.where(there, empty))
