"""The plan of a pass on llama.cpp: segments as calls, for both denoisers.

A call has one causal flag, its tokens stand at the next free positions of their stream, and
both ways means: all that the stream holds. So a segment is decoded group by group, a segment
behind another one on top of it, and one behind a part of what stands there in a copy of the
stream that ends with that part. Text that goes on is one run, whatever segments it comes in.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from itertools import groupby

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import GgufError
from dllm_plugins.messages import message

#: Most tokens of a causal text that are decoded at once. The same for every row in any company.
LONGEST = 512


@dataclass(frozen=True, slots=True)
class Planning:
    """What a denoiser's calls may be.

    :param placed: rotary positions may be others than those in the stream.
    :param pads: a single token is decoded in company, which is dropped again: it is rounded as several are then.
    """

    placed: bool = False
    pads: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive positions of a stream in one call.

    :param begin: the first of them.
    :param rotary: their rotary positions; None where those are the same.
    :param wanted: ascending indices into `tokens` whose rows come back.
    :param sources: for each of these the segment's number and the index in it; None where nobody asked.
    :param noisy: the segment's own.
    :param context: other segments of the row stand behind these tokens.
    :param company: the last token only keeps the one before it company.
    """

    begin: int
    tokens: Sequence[int]
    rotary: Sequence[int] | None
    causal: bool
    wanted: tuple[int, ...]
    sources: tuple[tuple[int, int] | None, ...]
    noisy: bool
    context: bool = False
    company: bool = False

    @property
    def end(self) -> int:
        """Behind the last position that stays in the stream."""
        return self.begin + len(self.tokens) - self.company


@dataclass(slots=True)
class Lane:
    """Chunks one after the other on one stream.

    :param length: how many positions the stream holds at first.
    :param forks: lanes that start on a copy of this one's first positions, once it has decoded them.
    """

    length: int
    chunks: list[Chunk] = field(default_factory=list)
    forks: list["Lane"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Text:
    """Segments, with their numbers in the pass, that stand one behind the other."""

    begin: int
    parts: list[tuple[int, Segment]]

    def goes_on(self, segment: Segment) -> bool:
        """Whether the segment is the same run of text."""
        return all(_is_text(part) for _, part in self.parts) and _is_text(segment)

    def chunks(self, planning: Planning, *, context: bool = False) -> Iterator[Chunk]:
        """In pieces that each fit one call."""
        first = self.parts[0][1]
        tokens = [token for _, part in self.parts for token in part.tokens]
        rotary = [position for _, part in self.parts for position in part.positions]
        sources = [(number, index) for number, part in self.parts for index in range(len(part.tokens))]
        wanted = {(number, index) for number, part in self.parts for index in part.wanted}
        plain = _follow(rotary, self.begin, planning)
        for begin, end, causal in _pieces(first, len(tokens)):
            company = planning.pads and end - begin == 1
            own = {index for index in range(end - begin) if sources[begin + index] in wanted}
            if len(own) == 1 and (company or end - begin > 1):
                # A single row goes through another product than two do: with a second one, company changes nothing.
                only = min(own)
                own.add(only - 1 if only else 1)
            yield Chunk(
                self.begin + begin,
                tokens[begin:end] * (1 + company),
                None if plain else [*rotary[begin:end], *[rotary[begin] + 1] * company],
                causal,
                tuple(sorted(own)),
                tuple(_asked(sources[begin:end], index, wanted) for index in sorted(own)),
                first.noisy,
                context,
                company,
            )


def _asked(sources: Sequence[tuple[int, int]], index: int, wanted: set[tuple[int, int]]) -> tuple[int, int] | None:
    found = sources[index] if index < len(sources) else None
    return found if found in wanted else None


def lane_of(call: Sequence[tuple[int, Segment]], base: int, planning: Planning) -> Lane:
    """Linked segments, each with its number in the pass, behind `base` positions.

    :raises GgufError: for what llama.cpp cannot compute, with the reason.
    """
    chain, forks, held = list[_Text](), list[_Text](), list[tuple[int, int]]()
    for place, (number, segment) in enumerate(call):
        seen = [pair for pair in segment.behind if pair[1]]
        _check_seen(seen, held)
        _check_segment(segment)
        begin = base + sum(count for _, count in seen)
        if seen != held:
            forks.append(_Text(begin, [(number, segment)]))
            continue
        held.append((place, len(segment.tokens)))
        if chain and chain[-1].goes_on(segment):
            chain[-1].parts.append((number, segment))
        else:
            chain.append(_Text(begin, [(number, segment)]))
    others = len(chain) + len(forks) > 1
    chunks = [
        chunk for index, text in enumerate(chain) for chunk in text.chunks(planning, context=others and index == 0)
    ]
    return Lane(base, chunks, [Lane(text.begin, list(text.chunks(planning))) for text in forks])


def _is_text(segment: Segment) -> bool:
    return segment.causal and segment.groups is None and not segment.noisy


def _check_seen(seen: Sequence[tuple[int, int]], held: Sequence[tuple[int, int]]) -> None:
    """What a segment sees must be what stands left of it, without a gap."""
    whole = held[: max(len(seen) - 1, 0)]
    fits = len(seen) <= len(held) and list(seen[:-1]) == list(whole)
    if seen and fits:
        (index, count), (other, most) = seen[-1], held[len(seen) - 1]
        fits = index == other and count <= most
    if not fits:
        raise GgufError(
            message(
                "a segment behind {} cannot be decoded where {} stands: llama.cpp sees whatever is "
                "left of it; choose another mode, or {backend}='torch'",
                list(seen),
                list(held),
            )
        )


def _check_segment(segment: Segment) -> None:
    if segment.apart is not None or segment.conditioning is not None:
        what = "hides single tokens from one another" if segment.apart is not None else "reads the last pass's logits"
        raise GgufError(
            message("this mode {}, which llama.cpp cannot; choose another mode, or {backend}='torch'", what)
        )
    if not segment.tokens:
        raise GgufError("a segment without tokens has no result; leave it out")


def _follow(rotary: Sequence[int], begin: int, planning: Planning) -> bool:
    """Whether rotary positions are those in the stream; refused where they cannot be others."""
    plain = list(rotary) == list(range(begin, begin + len(rotary)))
    if not plain and not planning.placed:
        raise GgufError(
            message(
                "positions {} do not follow on the {} cached ones, as llama.cpp demands; choose "
                "another mode, or {backend}='torch'",
                list(rotary[:8]),
                begin,
            )
        )
    return plain


def _pieces(segment: Segment, size: int) -> list[tuple[int, int, bool]]:
    """(first, behind the last, causal) of each piece; a single token is causal, which for it is the same."""
    if segment.groups is None:
        if not segment.causal:
            return [(0, size, size == 1)]
        return [(first, min(first + LONGEST, size), True) for first in range(0, size, LONGEST)]
    groups = list(segment.groups)
    if groups != sorted(groups):
        raise GgufError(
            message("groups {} are not in ascending order, as llama.cpp needs them; use {backend}='torch'", groups[:8])
        )
    pieces, begin = list[tuple[int, int, bool]](), 0
    for _, members in groupby(groups):
        end = begin + len(list(members))
        pieces.append((begin, end, end - begin == 1))
        begin = end
    return pieces
