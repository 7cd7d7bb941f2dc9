"""Explore until the end of the confident span stands still, then commit that span fast (arXiv 2506.10848).

The values are those of the paper, section 4.2; LiangrunFlora/Slow-Fast-Sampling dd9958f has
others (span 0.3, threshold 0.9, 6 passes, none of them saved when the end is found early).
"""

from dataclasses import dataclass
from typing import Any
from typing import Self

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import parameters

DEFAULT_THRESHOLD = 0.85


class SlowFastSettings(RuleSettings):
    """Parameters of the rule."""

    span: float = Field(0.1, ge=0.0, le=1.0, description="the span ends behind the last position above this")
    exploration: int = Field(8, ge=1, le=64, description="most slow passes of a cycle")
    window: int = Field(2, ge=1, le=64, description="slow passes whose ends must agree")
    variance: float = Field(1.0, gt=0.0, allow_inf_nan=False, description="they agree if their variance is below this")
    slow: int = Field(1, ge=1, le=1024, description="positions a slow pass commits")

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.window > self.exploration:
            raise ValueError(f"window={self.window} is longer than exploration={self.exploration}; make it shorter")
        return self


@dataclass(frozen=True)
class _Cycle:
    """Where every row stands.

    :param now: int64 [R, 5]: the position behind the span, -1 while exploring; the last position the
        previous pass saw; that pass; whether it was a fast one; slow passes of this cycle.
    :param ends: int64 [R, E], the ends that those saw.
    """

    now: Tensor
    ends: Tensor


class SlowFastRule(RuleDefaults):
    """Slow passes commit the most probable positions; fast ones all sure ones before the end of the span."""

    name = "slow_fast"
    options = frozenset({"threshold"})
    settings = SlowFastSettings
    summary = (
        "`slow` positions a pass until the end of the span above `span` stands still, then all of that span above "
        "`threshold` (default 0.85), at least one a pass (SlowFast, arXiv 2506.10848)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        levels = [DEFAULT_THRESHOLD if config.threshold is None else config.threshold for config in configs]
        before = _fresh(len(own), max(item.exploration for item in own)) if state is None else state
        rows = [_advanced(view, row, before, item) for row, item in enumerate(own)]
        cycle = _Cycle(torch.stack([now for now, _ in rows]), torch.stack([ends for _, ends in rows]))
        fast = cycle.now[:, 3:4] == 1
        scope = view.open & (~fast | (view.position < cycle.now[:, :1]))
        level = torch.tensor(levels, dtype=view.probability.dtype)[:, None]
        sure = scope & fast & (view.probability > level)
        slow = torch.tensor([item.slow for item in own]) - view.committed_now
        least = torch.where(fast[:, 0], ((view.committed_now == 0) & ~sure.any(-1)).long(), slow.clamp(min=0))
        return sure | most_probable(view.probability, scope, least), cycle


def _fresh(rows: int, exploration: int) -> _Cycle:
    return _Cycle(torch.full((rows, 5), -1), torch.zeros(rows, exploration, dtype=torch.int64))


def _advanced(view: CanvasView, row: int, cycle: _Cycle, own: SlowFastSettings) -> tuple[Tensor, Tensor]:
    """One row's cycle in this pass, int64 [5] and [E]; the same again for a second call in one pass."""
    is_open, step = view.open[row], int(view.step[row])
    positions = view.position[row][is_open]
    end, last, past, _, count = cycle.now[row].tolist()
    new_canvas = bool((positions > last).all())
    if not len(positions) or (past == step and not new_canvas):
        return cycle.now[row], cycle.ends[row]
    if new_canvas or not bool((positions < end).any()):
        end, count = -1, (0 if new_canvas or end >= 0 else count)
    fast, ends = end >= 0, cycle.ends[row].tolist()
    if not fast:
        ahead = positions[view.probability[row][is_open] > own.span]
        ends[count] = int(ahead.max() if len(ahead) else positions.min()) + 1
        count += 1
        end = _end(ends[:count], own)
    now = [end, int(view.position[row].max()), step, int(fast), count]
    return torch.tensor(now), torch.tensor(ends)


def _end(ends: list[int], own: SlowFastSettings) -> int:
    """The end of the span: the last seen if the window agrees, its mean if there are no more passes, else -1."""
    window = torch.tensor(ends[-own.window :], dtype=torch.float64)
    if len(window) == own.window and float(window.var(correction=0)) < own.variance:
        return ends[-1]
    return int(window.mean()) if len(ends) == own.exploration else -1
