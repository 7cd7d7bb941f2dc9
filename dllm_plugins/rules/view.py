"""From what a pass said to what a rule sees."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import entropy_of
from dllm_plugins.prediction import margin_of
from dllm_plugins.rules.base import CanvasView


@dataclass(frozen=True)
class Seen:
    """What a pass said at N positions of one row's canvas of B.

    :param index: int64 [N], into the canvas; None for its first N positions.
    :param token: int64 [N], drawn; it may be empty where no rule reads it.
    :param probability: float [N], of the drawn tokens.
    :param logits: float [N, V]; empty if no rule asks for what only they tell.
    :param known_entropy: float [N], where it is known without the logits; `known_margin` likewise.
    """

    index: Tensor | None
    token: Tensor
    probability: Tensor
    logits: Tensor
    known_entropy: Tensor | None = None
    known_margin: Tensor | None = None

    @cached_property
    def probabilities(self) -> Tensor:
        """Float32 [N, V]."""
        return torch.softmax(self.logits.float(), dim=-1).cpu()

    def entropy(self) -> Tensor:
        """Nats, float32 [N]."""
        if self.known_entropy is not None:
            return self.known_entropy.cpu()
        return entropy_of(self.logits.cpu(), self.probabilities)

    def margin(self) -> Tensor:
        """The first probability's lead over the second, float32 [N]."""
        if self.known_margin is not None:
            return self.known_margin.cpu()
        return margin_of(self.logits.cpu(), self.probabilities)


@dataclass(frozen=True)
class Positions:
    """One row's canvas of B positions.

    :param tokens: held ones; anything where open.
    :param open: which may be committed.
    :param committed: which may be reopened.
    :param position: how far each is from where the answer begins; -1 where there is none.
    """

    tokens: Sequence[int]
    open: Sequence[bool]
    committed: Sequence[bool]
    position: Sequence[int]


def make_view(
    positions: Positions, seen: Seen, needs: frozenset[str], *, committed_now: int, step: int, noise: RowNoise
) -> CanvasView:
    """What a rule sees of one row: a view with R = 1 that holds what it needs."""
    # Every tensor that is made costs a few microseconds in every pass.
    flags = torch.tensor([positions.open, positions.committed])
    counts = torch.tensor([committed_now, step])
    is_open = flags[:1]
    width, index = is_open.shape[1], seen.index

    def spread(values: Tensor) -> Tensor:
        whole = values.new_zeros(1, width, *values.shape[1:])
        if index is None:
            whole[0, : len(values)] = values
            return whole
        return whole.index_copy_(1, index, values[None])

    held = torch.tensor([positions.tokens]) if needs & {"token", "held"} else is_open
    found: dict[str, Tensor] = {}
    if "token" in needs:
        found["token"] = torch.where(is_open, spread(seen.token.cpu()), held)
    if "drawn" in needs:
        found["drawn"] = spread(seen.token.cpu())
    if "held" in needs:
        looked = held[0, : len(seen.probabilities)] if index is None else held[0, index]
        now = seen.probabilities.gather(1, looked.clamp(min=0)[:, None])[:, 0]
        found["held"] = spread(now)
    for name in ("entropy", "margin"):
        if name in needs:
            found[name] = spread(getattr(seen, name)())
    if "probabilities" in needs:
        found["probabilities"] = spread(seen.probabilities)
    return CanvasView(
        probability=spread(seen.probability.cpu()),
        open=is_open,
        committed_now=counts[:1],
        step=counts[1:],
        noise=(noise,),
        position=torch.tensor([positions.position]),
        committed=flags[1:],
        **found,
    )
