"""Segments of a pass as calls of llama.cpp: which tokens, behind which keys, seeing left or both ways.

A call has one causal flag, its tokens stand at the next free positions of their stream, and
both ways means: all that the stream holds. So a segment is decoded group by group, a segment
behind another one on top of it, and one behind a part of another one in a copy of the
stream that ends there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from itertools import groupby

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import GgufError
from dllm_plugins.messages import said

#: Most tokens of a causal segment that are decoded at once. The same for every row in any company.
CHUNK = 512


@dataclass(frozen=True, slots=True)
class Step:
    """Consecutive tokens of a segment in one call.

    :param segment: which segment of the pass.
    :param offset: where in it they begin.
    :param begin: their first position.
    :param wanted: ascending indices into `tokens`.
    :param noisy: the segment's own.
    :param context: other segments of the row stand behind this one.
    """

    segment: int
    offset: int
    begin: int
    tokens: Sequence[int]
    causal: bool
    wanted: tuple[int, ...]
    noisy: bool
    context: bool = False


@dataclass(slots=True)
class Lane:
    """Steps one after the other on one stream.

    :param length: how many positions the stream holds at first.
    :param forks: lanes that start on a copy of this one's first positions, and after how many of its steps.
    """

    length: int
    steps: list[Step] = field(default_factory=list)
    forks: list[tuple[int, "Lane"]] = field(default_factory=list)


def lane_of(call: Sequence[tuple[int, Segment]], base: int) -> Lane:
    """Linked segments, each with its number in the pass, behind `base` positions.

    :raises GgufError: for what llama.cpp cannot compute, with the reason.
    """
    lane, held = Lane(base), list[tuple[int, int]]()
    for place, (number, segment) in enumerate(call):
        seen = [pair for pair in segment.behind if pair[1]]
        _check_seen(seen, held)
        length = base + sum(count for _, count in seen)
        steps = steps_of(number, segment, length)
        if seen == held:
            if place == 0 and len(call) > 1:
                steps = [replace(step, context=True) for step in steps]
            lane.steps += steps
            held.append((place, len(segment.tokens)))
        else:
            lane.forks.append((len(lane.steps), Lane(length, steps)))
    return lane


def _check_seen(seen: Sequence[tuple[int, int]], held: Sequence[tuple[int, int]]) -> None:
    """What a segment sees must be what stands left of it, without a gap."""
    whole = held[: max(len(seen) - 1, 0)]
    fits = len(seen) <= len(held) and list(seen[:-1]) == list(whole)
    if seen and fits:
        (index, count), (other, most) = seen[-1], held[len(seen) - 1]
        fits = index == other and count <= most
    if not fits:
        raise GgufError(
            said(
                "a segment behind {} cannot be decoded where {} stands: llama.cpp sees whatever is "
                "left of it; choose another mode, or {backend}='torch'",
                list(seen),
                list(held),
            )
        )


def steps_of(number: int, segment: Segment, begin: int) -> list[Step]:
    """A segment in pieces that each fit one call."""
    _check_segment(segment, begin)
    size, found = len(segment.tokens), list[Step]()
    for first, last, causal in _pieces(segment, size):
        own = sorted({index - first for index in segment.wanted if first <= index < last})
        if len(own) == 1 and last - first > 1:
            # A single row goes through another product than two do: with a second one, company changes nothing.
            own = sorted({own[0], own[0] - 1 if own[0] else 1})
        tokens = segment.tokens[first:last]
        found.append(Step(number, first, begin + first, tokens, causal, tuple(own), segment.noisy))
    return found


def _check_segment(segment: Segment, begin: int) -> None:
    if segment.apart is not None or segment.conditioning is not None:
        what = "hides single tokens from one another" if segment.apart is not None else "reads the last pass's logits"
        raise GgufError(said("this mode {}, which llama.cpp cannot; choose another mode, or {backend}='torch'", what))
    places = list(segment.positions)
    if places != list(range(begin, begin + len(places))):
        raise GgufError(
            said(
                "positions {} do not follow on the {} cached ones, as llama.cpp demands; choose "
                "another mode, or {backend}='torch'",
                places[:8],
                begin,
            )
        )
    if not segment.tokens:
        raise GgufError("a segment without tokens has no result; leave it out")


def _pieces(segment: Segment, size: int) -> list[tuple[int, int, bool]]:
    """(first, behind the last, causal) of each piece; a single token is causal, which for it is the same."""
    if segment.groups is None:
        if not segment.causal:
            return [(0, size, size == 1)]
        return [(first, min(first + CHUNK, size), True) for first in range(0, size, CHUNK)]
    groups = list(segment.groups)
    if groups != sorted(groups):
        raise GgufError(
            said("groups {} are not in ascending order, as llama.cpp needs them; use {backend}='torch'", groups[:8])
        )
    pieces, begin = list[tuple[int, int, bool]](), 0
    for _, members in groupby(groups):
        end = begin + len(list(members))
        pieces.append((begin, end, end - begin == 1))
        begin = end
    return pieces
