"""What a row's answer is held to while it is written: the engine's side of a constraint."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Limits(Protocol):
    """Decides which tokens may stand where, so that the canvas can still be completed.

    Positions count from the beginning of the canvas, whose `tokens` are given as they stand, the mask id where open.
    """

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Which tokens may stand at each position, whatever it holds now; bool [N, V]."""

    def next_masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """The same for a model that writes from left to right: what stands behind a position does not count."""

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """Whether a token may stand at a position, whatever it holds now."""

    def forced(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Open positions with the tokens that have to stand there."""

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """Whether the answer, or the gap it is in, may end before a position; nothing on its left there is open."""
