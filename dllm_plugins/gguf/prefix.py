"""Prefixes of rows that have ended: in their stream until that is needed, then as bytes outside llama.cpp."""

from collections import deque
from weakref import WeakValueDictionary

from dllm_plugins.errors import GgufError
from dllm_plugins.gguf.context import Context
from dllm_plugins.gguf.state import State


class Prefix:
    """What a row leaves behind; dropping it gives the memory back.

    :param stream: where its keys are; None if they are elsewhere, or if there are none.
    """

    def __init__(self, length: int, stream: int | None = None, shelf: "Shelf | None" = None) -> None:
        self.length = length
        self.stream = stream
        self.shelf = shelf
        self.state: State | None = None

    def __del__(self) -> None:
        """The stream is free again. This may run in any thread, so the shelf itself empties it later."""
        if self.shelf is not None and self.stream is not None:
            self.shelf.dropped.append(self.stream)


class Shelf:
    """The streams of one context: given out to rows, taken back with their keys."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.dropped: deque[int] = deque()
        self._kept: WeakValueDictionary[int, Prefix] = WeakValueDictionary()

    def stream(self) -> int:
        """An empty stream. Where there is no room, a kept prefix makes some rather than that the context grows."""
        self._empty()
        if self.context.streams >= self.context.size.streams:
            oldest = next(iter(list(self._kept.values())), None)
            if oldest is not None:
                self._move_out(oldest)
        return self.context.open()

    def give_back(self, stream: int) -> None:
        """A stream whose keys nobody needs."""
        self.context.close_stream(stream)

    def keep(self, stream: int, length: int) -> Prefix:
        """The first `length` positions of a stream, which is the shelf's from now on.

        Once nothing but prefixes is left, and the context had grown a lot, they move out and it shrinks.
        """
        self.context.cut(stream, length)
        found = Prefix(length, stream, self)
        self._kept[stream] = found
        self._empty()
        if self.context.large and self.context.streams == len(self._kept):
            for prefix in list(self._kept.values()):
                self._move_out(prefix)
            self.context.shrink()
        return found

    def _empty(self) -> None:
        while self.dropped:
            self.context.close_stream(self.dropped.popleft())

    def _move_out(self, prefix: Prefix) -> None:
        """Its keys leave llama.cpp as bytes."""
        stream = prefix.stream
        assert stream is not None, "it was moved out before"
        prefix.state, prefix.stream = self.context.save(stream), None
        del self._kept[stream]
        self.context.close_stream(stream)

    def take(self, prefix: Prefix, length: int) -> int:
        """A stream with a copy of the first `length` positions of a prefix.

        :raises GgufError: if the prefix is another model's, or not that long.
        """
        if prefix.shelf is not self or not 0 <= length <= prefix.length:
            whose = "another model's" if prefix.shelf is not self else f"{prefix.length} positions long"
            raise GgufError(f"the kept prefix of which {length} positions are asked for is {whose}; start without it")
        target = self.stream()
        if prefix.stream is not None:
            self.context.copy(prefix.stream, length, target)
        elif prefix.state is not None and length:
            self.context.load(prefix.state, length, target)
        return target
