"""The contract of a commit rule."""

from dataclasses import dataclass
from typing import Any
from typing import Protocol

from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.noise import RowNoise


@dataclass(frozen=True, slots=True)
class CanvasView:
    """What a rule may know of the canvas of R rows, B positions each.

    :param probability: of the drawn token, float32 [R, B]; anything where not open.
    :param open: bool [R, B], the positions that may be settled now.
    :param settled_now: int64 [R], tokens this pass has settled already (the frontier counts).
    :param step: int64 [R], passes of the row before this one, not counting the prefill.
    :param noise: one random stream per row.
    """

    probability: Tensor
    open: Tensor
    settled_now: Tensor
    step: Tensor
    noise: tuple[RowNoise, ...]


class CommitRule(Protocol):
    """Decides which open positions to settle. No model, no I/O, no memory of its own.

    `name` is what users type; `options` are the SamplingConfig fields the rule honours;
    `summary` is one line with its source.
    """

    name: str
    options: frozenset[str]
    summary: str

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """Bool [R, B] of positions to settle, a subset of `view.open`, and the next state."""


def most_probable(probability: Tensor, open_positions: Tensor, count: Tensor) -> Tensor:
    """The `count` [R] most probable open positions of each row, bool [R, B]; ties go left."""
    ranked = probability.masked_fill(~open_positions, -1.0)
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)
    return open_positions & (rank < count[:, None])
