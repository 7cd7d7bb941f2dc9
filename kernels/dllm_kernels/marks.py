"""Which positions of a row's keys are kept, wherever these are stored."""

from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence

from dllm_kernels.dispatch import KernelError


class Marks(ABC):
    """The prefix, held keys of an approximate cache behind it, and what the last pass left behind both.

    A pass writes right behind what is kept, so freezing mostly moves a mark.

    :ivar length: frozen positions.
    :ivar held: kept positions behind them, until released.
    """

    def __init__(self) -> None:
        self.length = 0
        self.held = 0
        self._pending: list[int] = []

    @property
    def kept(self) -> int:
        """Positions that every token sees: frozen and held ones."""
        return self.length + self.held

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Positions there is room for, kept ones included."""

    def pend(self, count: int) -> None:
        """The first `count` positions of this pass may be frozen, then held.

        :raises KernelError: if there is no room for as many.
        """
        if not 0 <= count <= self.capacity - self.kept:
            raise KernelError(f"{count} positions do not fit behind {self.kept} of {self.capacity}; reserve room first")
        self._pending = [*range(self.kept, self.kept + count)]

    def freeze(self, count: int) -> None:
        """The first `count` pending positions join the prefix; held ones go.

        :raises KernelError: if fewer are pending, or they were frozen already.
        """
        places = self._first(count)[:count]
        if places and places[0] < self.length:
            raise KernelError("the last pass was frozen already; make another pass first")
        if places and places[0] != self.length:
            self._move(places)
            self._pending[:count] = range(self.length, self.length + count)
        self.length += count
        self.held = 0

    def hold(self, indices: Sequence[int]) -> None:
        """These pending positions are held, in place of the earlier ones; the others are lost.

        :raises KernelError: if they are not pending.
        """
        places = self._first(max(indices, default=-1) + 1)
        if min(indices, default=0) < 0:
            raise KernelError(f"positions {list(indices)} are wanted; count them from 0 on")
        self._move([places[index] for index in indices])
        self.held, self._pending = len(indices), []

    def release(self) -> None:
        """Forget what is held."""
        self.held = 0

    @abstractmethod
    def _move(self, places: Sequence[int]) -> None:
        """What stands at these places goes right behind what is frozen."""

    def _first(self, count: int) -> list[int]:
        """The places of what is pending, at least `count`."""
        if not 0 <= count <= len(self._pending):
            raise KernelError(f"{count} positions of the last pass are wanted, {len(self._pending)} are pending")
        return self._pending

    def _refuse_more_than_frozen(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise KernelError(f"{length} positions of a prefix are wanted, {self.length} are frozen")
