"""What every denoiser does with its rows: one store of keys per row, by handle."""

from collections.abc import Sequence
from typing import Generic
from typing import Protocol
from typing import TypeVar

from torch import Tensor

from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment


class RowStore(PrefixState, Protocol):
    """A row's keys."""

    def freeze(self, count: int) -> None:
        """The first `count` tokens of the last pass join the prefix."""


AnyStore = TypeVar("AnyStore", bound=RowStore)


class Handles(FullDenoiser, Generic[AnyStore]):
    """Part of a denoiser: its open rows; the rest opens them with :meth:`_open` and takes them out."""

    def __init__(self) -> None:
        self._rows: dict[int, AnyStore] = {}
        self._opened = 0
        # Rows that shared a call in the last pass; None where that is not told.
        self._shared: frozenset[int] | None = None

    def _open(self, store: AnyStore) -> int:
        """A new handle for a store."""
        self._opened = handle = self._opened + 1
        try:
            self._rows[handle] = store
            return handle
        except BaseException:
            # An interrupt: nobody will know the handle.
            self._rows.pop(handle, None)
            raise

    @property
    def open_rows(self) -> int:
        """Rows being decoded."""
        return len(self._rows)

    def shared(self, row: int) -> bool | None:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`."""
        return None if self._shared is None else row in self._shared

    def freeze(self, row: int, count: int) -> None:
        """The first `count` tokens of the row's first segment of the last pass join the prefix."""
        self._rows[row].freeze(count)


class Rows(Handles[AnyStore]):
    """The same where a row's store is itself the prefix it leaves."""

    def close_row(self, row: int) -> AnyStore:
        """End the row; its store is the caller's."""
        return self._rows.pop(row)


def wanted_of(hidden: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    """The wanted hidden states of each segment; hidden [N, width] of all their tokens in order."""
    found, begin = [], 0
    for segment in segments:
        found.append(hidden[[begin + index for index in segment.wanted]])
        begin += len(segment.tokens)
    return found
