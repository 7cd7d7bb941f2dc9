"""A pass of the tri-mode default as pieces that each fit one call of llama.cpp."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import GgufError
from dllm_plugins.llama_cpp.rows import LlamaRow
from dllm_plugins.messages import said

#: Most tokens of a piece. The same for every row in any company.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive clean tokens of a row.

    :param begin: where in the row's clean tokens of the pass they begin.
    :param rotary: their rotary positions; None where those are their places in the cache.
    :param wanted: ascending indices into `tokens`.
    """

    part: "Part"
    begin: int
    tokens: list[int]
    rotary: list[int] | None
    wanted: tuple[int, ...]


@dataclass(eq=False, slots=True)
class Part:
    """One row's share of a pass.

    :param clean: its clean segments by number in the pass, each behind all of those before it.
    :param opened: its open segments, and how many clean tokens of the pass each of them sees.
    :param rows: logits of clean tokens, by index into all of them.
    :param found: rows of open segments, by number in the pass.
    :param calls: how many calls computed clean rows, and how many open ones.
    """

    handle: int
    row: LlamaRow
    clean: list[tuple[int, Segment]] = field(default_factory=list)
    opened: list[tuple[int, Segment, int]] = field(default_factory=list)
    rows: dict[int, "NDArray[np.float32]"] = field(default_factory=dict)
    found: dict[int, "NDArray[np.float32]"] = field(default_factory=dict)
    calls: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def stream(self) -> int:
        """Where its keys are: the model keeps some."""
        assert self.row.stream is not None
        return self.row.stream

    @property
    def length(self) -> int:
        """Clean tokens of the pass."""
        return sum(len(segment.tokens) for _, segment in self.clean)

    def add(self, number: int, segment: Segment) -> None:
        """Take the row's next segment in.

        :raises GgufError: if what it sees is not all that is left of it, up to some place.
        """
        sizes = [len(item.tokens) for _, item in self.clean]
        seen = [count for _, count in segment.behind]
        fits = [place for place, _ in segment.behind] == list(range(len(seen))) and len(seen) <= len(sizes)
        fits = fits and all(count == size for count, size in zip(seen[:-1], sizes, strict=False))
        fits = fits and (not seen or seen[-1] <= sizes[len(seen) - 1])
        if not segment.noisy:
            fits = fits and segment.causal and not self.opened and sum(seen) == sum(sizes)
        if not fits or segment.apart is not None or segment.conditioning is not None or segment.groups is not None:
            raise GgufError(
                said(
                    "a segment behind {} cannot be computed where clean ones of {} tokens stand: llama.cpp "
                    "sees whatever is left of it; choose another mode, or {backend}='torch'",
                    list(segment.behind),
                    sizes,
                )
            )
        if segment.noisy:
            self.opened.append((number, segment, sum(seen)))
        else:
            self.clean.append((number, segment))

    def pieces(self) -> list[Piece]:
        """Its clean tokens; never one alone, and never one row alone that is wanted."""
        tokens = [token for _, segment in self.clean for token in segment.tokens]
        places = [place for _, segment in self.clean for place in segment.positions]
        plain = places == list(range(self.row.base, self.row.base + len(places)))
        wanted = set(self._wanted().values())
        return [
            _accompanied(
                self,
                begin,
                tokens[begin : begin + CHUNK],
                None if plain else places[begin : begin + CHUNK],
                sorted(index - begin for index in wanted if begin <= index < begin + CHUNK),
            )
            for begin in range(0, len(tokens), CHUNK)
        ]

    def _wanted(self) -> Mapping[tuple[int, int], int]:
        """Which of all clean tokens a segment's wanted index is, by the segment's number and place in `wanted`."""
        begins = accumulate((len(segment.tokens) for _, segment in self.clean), initial=0)
        return {
            (number, place): begin + index
            for (number, segment), begin in zip(self.clean, begins, strict=False)
            for place, index in enumerate(segment.wanted)
        }

    def results(self, vocabulary: int) -> Iterator[tuple[int, "NDArray[np.float32]"]]:
        """Rows of what each segment wanted, in its order, by its number in the pass."""
        yield from self.found.items()
        where = self._wanted()
        for number, segment in self.clean:
            rows = [self.rows[where[number, place]] for place in range(len(segment.wanted))]
            yield number, np.stack(rows) if rows else np.empty((0, vocabulary), np.float32)


def _accompanied(part: Part, begin: int, tokens: list[int], rotary: list[int] | None, wanted: list[int]) -> Piece:
    """A piece of at least two tokens and none or at least two wanted rows; what is added sees, and is not seen."""
    if len(tokens) == 1:
        tokens = tokens * 2
        rotary = None if rotary is None else [rotary[0], rotary[0] + 1]
    if len(wanted) == 1:
        wanted = sorted({wanted[0], wanted[0] - 1 if wanted[0] else 1})
    return Piece(part, begin, tokens, rotary, tuple(wanted))


def parts_of(segments: Sequence[Segment], rows: Mapping[int, LlamaRow]) -> list[Part]:
    """The segments of a pass by row.

    :raises GgufError: for what llama.cpp cannot compute.
    """
    parts: list[Part] = []
    for number, segment in enumerate(segments):
        if not parts or parts[-1].handle != segment.row:
            parts.append(Part(segment.row, rows[segment.row]))
        parts[-1].add(number, segment)
    return parts
