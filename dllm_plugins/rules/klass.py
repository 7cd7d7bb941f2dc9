"""Commit what is probable and has stopped changing (KLASS, arXiv 2511.05664; shkim0116/KLASS ad87ecb)."""

from dataclasses import dataclass
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
from dllm_plugins.rules.history import recalled
from dllm_plugins.rules.threshold import DEFAULT_THRESHOLD

_SMALLEST = 1e-12
#: No pass, and not the pass before one either.
_NEVER = -2


class KlassSettings(RuleSettings):
    """Parameters of the rule."""

    divergence: float = Field(
        0.01, gt=0.0, description="nats; a prediction that moved by less than this in a pass is stable"
    )
    history: int = Field(2, ge=1, le=64, description="passes it must have been stable for")


@dataclass(frozen=True)
class _Past:
    """What was predicted.

    :param position: int64 [R, B].
    :param step: int64 [R, B], the pass in which the position was last open.
    :param now: float [R, B, V], predicted in that pass.
    :param before: float [R, B, V], in the pass before it; sums to 0 if the position was not open then.
    :param moves: float64 [R, B, H], by how much each of the last passes moved it, the newest last.
    """

    position: Tensor
    step: Tensor
    now: Tensor
    before: Tensor
    moves: Tensor


class KlassRule(RuleDefaults):
    """Commit where p > threshold and KL(p_t || p_(t-1)) < divergence for the last `history` passes.

    Without any, the most probable one. A position has no divergence in the first pass that
    sees it, so with the default history it can be stable from its third pass on. The
    reference also compares across the border of a block, which a rule does not see.
    """

    name = "klass"
    options = frozenset({"threshold"})
    needs = frozenset({"probabilities"})
    settings = KlassSettings
    summary = (
        "every position more probable than `threshold` (default 0.9) whose prediction moved by less than "
        "`divergence` in each of the last `history` passes, at least one a pass (KLASS, arXiv 2511.05664)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        levels = [DEFAULT_THRESHOLD if config.threshold is None else config.threshold for config in configs]
        past = _remembered(view, state, max(item.history for item in own))
        stable = torch.stack(
            [(moves[:, -item.history :] < item.divergence).all(-1) for moves, item in zip(past.moves, own, strict=True)]
        )
        level = torch.tensor(levels, dtype=view.probability.dtype)[:, None]
        ready = view.open & stable & (view.probability > level)
        none_yet = (view.committed_now == 0) & ~ready.any(-1)
        return ready | most_probable(view.probability, view.open, none_yet.long()), past


def _remembered(view: CanvasView, state: _Past | None, history: int) -> _Past:
    """The past with this pass added; a second call in one pass replaces what the first one added."""
    now, step = view.probabilities, view.step[:, None].expand_as(view.position)
    if state is None:
        moves = torch.full((*view.position.shape, history), torch.inf, dtype=torch.float64)
        return _Past(view.position, step.where(view.open, _NEVER), now, torch.zeros_like(now), moves)
    known, last, latest, before, moves = recalled(
        state.position, view.position, state.step, state.now, state.before, state.moves
    )
    again, next_pass = known & (last == step), known & (last == step - 1)
    before = torch.where(next_pass[..., None], latest, before * again[..., None])
    has_past = before.sum(-1) > 0
    moved = _divergence(now, before).masked_fill(~has_past, torch.inf)
    kept = torch.where(next_pass[..., None], moves.roll(-1, dims=-1), moves)
    kept = kept.masked_fill(~(again | next_pass)[..., None], torch.inf)
    kept = torch.cat([kept[..., :-1], moved[..., None]], dim=-1)
    return _Past(view.position, step.where(view.open, torch.where(known, last, _NEVER)), now, before, kept)


def _divergence(now: Tensor, before: Tensor) -> Tensor:
    """KL(now || before) of distributions [..., V], in nats, float64."""
    first, second = now.double(), before.double()
    return (first * (first.clamp(min=_SMALLEST).log() - second.clamp(min=_SMALLEST).log())).sum(-1)
