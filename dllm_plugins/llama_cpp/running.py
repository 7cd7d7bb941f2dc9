"""Runs the calls of one pass: in rounds, each lane one chunk, chunks of equal shape together.

Tokens of several streams decoded together, two or more of each, give bit for bit what each gives
alone (:mod:`~dllm_plugins.llama_cpp.sharing`). Single tokens do not (other products), and run alone.
"""

from collections import deque
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.calls import LONGEST
from dllm_plugins.llama_cpp.calls import Chunk
from dllm_plugins.llama_cpp.calls import Lane
from dllm_plugins.llama_cpp.context import Outputs
from dllm_plugins.llama_cpp.prefix import Shelf

#: Copies of streams that are decoded beside one another, unless a lane needs more at once.
SCRATCH = 4


@dataclass(slots=True, weakref_slot=True)
class RunningLane:
    """A lane under way.

    :param row: handle of the row it belongs to.
    :param stream: None for a model without a memory.
    :param scratch: whether the stream is a copy that is given back at the end.
    :param done: chunks behind it.
    """

    row: int
    lane: Lane
    stream: int | None
    scratch: bool = False
    done: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether there are chunks left."""
        return self.done < len(self.lane.chunks)

    @property
    def length(self) -> int:
        """How many positions the stream holds."""
        return self.lane.chunks[self.done - 1].end if self.done else self.lane.length


#: Rows of each chunk's wanted tokens, for chunks that share a call.
Decode = Callable[[Sequence[tuple[RunningLane, Chunk]]], list[Outputs]]
#: Chunks with equal keys may share a call.
ChunkKey = Callable[[Chunk], Hashable]


class Rounds:
    """The lanes of one pass.

    :param shares: whether chunks may share calls at all; asked only if some could.
    """

    def __init__(self, shelf: Shelf, decode: Decode, key: ChunkKey, shares: Callable[[], bool]) -> None:
        self._shelf = shelf
        self._decode = decode
        self._key = key
        self._shares = shares
        self._active: list[RunningLane] = []
        self._waiting: deque[tuple[RunningLane, int]] = deque()

    def start(self, row: int, lane: Lane, stream: int | None) -> None:
        """A lane on the row's own stream."""
        self._active.append(RunningLane(row, lane, stream))

    def wait(self, row: int, lane: Lane, source: int | None) -> None:
        """A lane on a copy of the beginning of the row's stream, made once there is a stream to spare."""
        if source is None:
            self._active.append(RunningLane(row, lane, None))
        else:
            self._waiting.append((RunningLane(row, lane, None, scratch=True), source))

    def run(self) -> list[tuple[Chunk, Outputs]]:
        """Rows of the wanted tokens of every chunk."""
        found: list[tuple[Chunk, Outputs]] = []
        try:
            while self._active or self._waiting:
                self._fill()
                self._fork()
                found += self._round()
                self._end()
        finally:
            for running in self._active:
                self._give_back(running)
            self._active.clear()
        return found

    def _copy(self, running: RunningLane, source: int) -> None:
        self._active.append(running)
        self._shelf.context.copy(source, running.lane.length, self._shelf.stream(running))

    def _room(self) -> bool:
        return sum(running.scratch for running in self._active) < SCRATCH

    def _fill(self) -> None:
        while self._waiting and self._room():
            self._copy(*self._waiting.popleft())

    def _fork(self) -> None:
        """Lanes that start on what another one has decoded, as far as there is room or nothing else goes on."""
        for running in list(self._active):
            ready = [lane for lane in running.lane.forks if lane.length <= running.length]
            if ready and running.stream is None:
                raise GgufError("a model that keeps no keys forwards whole canvases only; choose another mode")
            for lane in ready:
                if self._room() or not any(other.goes_on for other in self._active):
                    running.lane.forks.remove(lane)
                    self._copy(RunningLane(running.row, lane, None, scratch=True), cast(int, running.stream))

    def _round(self) -> list[tuple[Chunk, Outputs]]:
        groups: dict[Hashable, list[tuple[RunningLane, Chunk]]] = {}
        for running in self._active:
            if running.goes_on:
                chunk = running.lane.chunks[running.done]
                alone = len(chunk.tokens) == 1 or running.stream is None
                groups.setdefault(id(running) if alone else self._key(chunk), []).append((running, chunk))
        found: list[tuple[Chunk, Outputs]] = []
        # Clean chunks together, then open ones: llama.cpp may have to be switched between them.
        for group in sorted(groups.values(), key=lambda group: group[0][1].noisy):
            share = max(LONGEST // len(group[0][1].tokens), 1) if len(group) > 1 and self._shares() else 1
            for begin in range(0, len(group), share):
                part = group[begin : begin + share]
                found += zip((chunk for _, chunk in part), self._decode(part), strict=True)
        for running in self._active:
            running.done += running.goes_on
        return found

    def _end(self) -> None:
        """Lanes without a step left make room; one that others still start from stays."""
        ended = [running for running in self._active if not running.goes_on]
        for running in ended:
            if not running.lane.forks:
                self._give_back(running)
                self._active.remove(running)

    def _give_back(self, running: RunningLane) -> None:
        if running.scratch:
            self._shelf.give_back(running)
