"""Prefixes of rows that have ended: in their stream until that is needed, then as bytes outside llama.cpp.

A stream belongs to whoever the shelf has noted for it and says so itself. One that nobody has any
more is emptied when the next is asked for: its holder is gone, or an interrupt came before it was handed over.
"""

from dataclasses import dataclass
from typing import Protocol
from weakref import ReferenceType
from weakref import ref

from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.state import StreamState


class Holder(Protocol):
    """Whoever has a stream, until it says None or is gone."""

    stream: int | None


@dataclass(eq=False, slots=True, weakref_slot=True)
class Scratch:
    """Holds a stream for a while."""

    stream: int | None = None


class StreamPrefix:
    """What a row leaves behind; dropping it gives the memory back.

    :param stream: where its keys are; None if they are elsewhere, or if there are none.
    """

    def __init__(self, length: int, stream: int | None = None, shelf: "Shelf | None" = None) -> None:
        self.length = length
        self.stream = stream
        self.shelf = shelf
        self.state: StreamState | None = None


class Shelf:
    """The streams of one context: given out to rows, taken back with their keys."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._holders: dict[int, ReferenceType[Holder]] = {}

    def stream(self, holder: Holder) -> int:
        """An empty stream. Where there is no room, a kept prefix makes some rather than that the context grows."""
        self._empty()
        if self.context.streams >= self.context.size.streams:
            oldest = next(iter(self._kept()), None)
            if oldest is not None:
                self._move_out(oldest)
        stream = self.context.open()
        self._note(stream, holder)
        holder.stream = stream
        return stream

    def _note(self, stream: int, holder: Holder) -> None:
        """The stream is this one's from now on; those noted last come last."""
        self._holders.pop(stream, None)
        self._holders[stream] = ref(holder)

    def give_back(self, holder: Holder) -> None:
        """Its keys are needed no more."""
        holder.stream = None
        self._empty()

    def keep(self, holder: Holder, length: int) -> StreamPrefix:
        """The first `length` positions of its stream, which is the prefix's from now on.

        Once nothing but prefixes is left, and the context had grown a lot, they move out and it shrinks.
        """
        assert holder.stream is not None, "it has one"
        self.context.cut(holder.stream, length)
        found = StreamPrefix(length, holder.stream, self)
        self._note(holder.stream, found)
        self._empty()
        kept = self._kept()
        if self.context.large and self.context.streams == len(kept):
            for prefix in kept:
                self._move_out(prefix)
            self.context.shrink()
        return found

    def _kept(self) -> list[StreamPrefix]:
        """Prefixes in streams, the oldest first."""
        holders = [note() for note in self._holders.values()]
        return [prefix for prefix in holders if isinstance(prefix, StreamPrefix) and prefix.stream is not None]

    def _empty(self) -> None:
        """Close the streams that nobody has."""
        for stream in self.context.opened:
            holder = self._holders[stream]() if stream in self._holders else None
            if holder is None or holder.stream != stream:
                self.context.close_stream(stream)

    def _move_out(self, prefix: StreamPrefix) -> None:
        """Its keys leave llama.cpp as bytes."""
        assert prefix.stream is not None, "it was moved out before"
        prefix.state = self.context.save(prefix.stream)
        self.give_back(prefix)

    def take(self, prefix: StreamPrefix, length: int, holder: Holder) -> int:
        """A stream with a copy of the first `length` positions of a prefix.

        :raises GgufError: if the prefix is another model's, or not that long.
        """
        if prefix.shelf is not self or not 0 <= length <= prefix.length:
            whose = "another model's" if prefix.shelf is not self else f"{prefix.length} positions long"
            raise GgufError(f"the kept prefix of which {length} positions are asked for is {whose}; start without it")
        target = self.stream(holder)
        if prefix.stream is not None:
            self.context.copy(prefix.stream, length, target)
        elif prefix.state is not None and length:
            self.context.load(prefix.state, length, target)
        return target
