"""Gaps between fixed tokens: every decision against all fillings, written out one by one over a small vocabulary."""

import random
import re
from collections.abc import Sequence
from itertools import product

import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.framing import framed
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.vocabulary import Vocabulary
from dllm_plugins.decoding.gap_limits import GapLimits
from dllm_plugins.decoding.gap_limits import ResumedAutomaton
from dllm_plugins.decoding.gap_limits import TextReach
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.row import OpenGap

from .small import CONTROL
from .small import MASK
from .small import PIECES
from .small import STOP
from .small import encoded

A, B, AB, HALF, REST = (PIECES.index(piece) for piece in (b"a", b"b", b"ab", b"\xc3", b"\xa9"))
#: What stands before and behind gaps: a control token, halves of a character, a token that ends texts elsewhere.
FIXED = [[CONTROL, A], [B], [], [AB, A], [HALF, REST], [A, STOP], [REST]]
PATTERNS = ["(ab)*", "a{2,6}b?a*", "(a|b){3,5}", "(é|a)*b?", "abaab|ababa|aba", "[^a]*ab+a", "(é|b)+(é|a)*"]
#: How long each of the gaps is, and whether it may be shorter.
GAPS = [[(3, True)], [(3, False)], [(1, True), (2, True)], [(2, False), (1, True)], [(2, True), (1, False)]]


def canvas_of(rng: random.Random, shape: Sequence[tuple[int, bool]]) -> tuple[list[int], list[OpenGap]]:
    """Fixed tokens and gaps behind two positions that are none of the text."""
    canvas, gaps = [5, 5, *rng.choice(FIXED)], []
    for room, bounded in shape:
        gaps.append(OpenGap(len(canvas), len(canvas) + room, room, bounded))
        canvas += [MASK] * room + rng.choice(FIXED)
    return canvas, gaps


def text_of(tokens: Sequence[int], gap: OpenGap | None = None) -> bytes | None:
    """What tokens spell, of a gap up to its end; None for a gap that holds what it must not."""
    found = bytearray()
    for token in tokens:
        if gap is not None and token == STOP and gap.bounded:
            break
        piece = PIECES[token]
        if piece is None and gap is not None:
            return None
        found += piece or b""
    return bytes(found)


def matches(source: str, text: bytes | None) -> bool:
    try:
        return text is not None and re.fullmatch(source, text.decode()) is not None
    except UnicodeDecodeError:
        return False


def filled(canvas: Sequence[int], gaps: Sequence[OpenGap], tokens: Sequence[int]) -> list[int]:
    """The canvas with these tokens in its gaps."""
    rest, whole = iter(tokens), list(canvas)
    for gap in gaps:
        whole[gap.start : gap.stop] = [next(rest) for _ in gap.positions]
    return whole


def whole_text(canvas: Sequence[int], gaps: Sequence[OpenGap]) -> bytes | None:
    """Of a filled canvas, from position 2 on."""
    found, place = b"", 2
    for gap in gaps:
        inside = text_of(canvas[gap.start : gap.stop], gap)
        if inside is None:
            return None
        found += (text_of(canvas[place : gap.start]) or b"") + inside
        place = gap.stop
    return found + (text_of(canvas[place:]) or b"")


def fillings(canvas: Sequence[int], gaps: Sequence[OpenGap]) -> list[list[int]]:
    """All of them."""
    count = sum(gap.room for gap in gaps)
    return [filled(canvas, gaps, tokens) for tokens in product(range(len(PIECES)), repeat=count)]


def check(limits: Limits, canvas: list[int], gaps: Sequence[OpenGap], members: list[list[int]], seed: int) -> None:
    """Positions written, taken back and written over in any order."""
    rng = random.Random(seed)
    inside = [position for gap in gaps for position in gap.positions]
    for _ in range(9):
        position = rng.choice(inside)
        others = [place for place in inside if place != position and canvas[place] != MASK]
        allowed = {own[position] for own in members if all(canvas[place] == own[place] for place in others)}
        [mask] = limits.masks(canvas, [position])
        assert set(mask.nonzero()[:, 0].tolist()) == allowed
        assert {token for token in range(len(PIECES)) if limits.allows(canvas, position, token)} == allowed
        canvas[position] = MASK if canvas[position] != MASK and rng.random() < 0.5 else rng.choice(sorted(allowed))


@pytest.mark.parametrize("source", PATTERNS)
def test_a_text_is_walked_through_its_gaps(source: str) -> None:
    """A token is allowed exactly where the whole text can still become one of the language."""
    automaton = ResumedAutomaton(build(Pattern(source)), Vocabulary(PIECES), [STOP], encoded)
    rng, possible = random.Random(source), 0
    for number in range(8):
        canvas, gaps = canvas_of(rng, GAPS[number % len(GAPS)])
        members = [own for own in fillings(canvas, gaps) if matches(source, whole_text(own, gaps))]
        reach = TextReach(automaton, gaps, 2, canvas, MASK)
        assert reach.possible(canvas) == bool(members)
        if members:
            possible += 1
            check(reach, canvas, gaps, members, number)
        elif reach.stuck() is None:
            # Longer gaps would do.
            longer = random.Random(number)
            assert any(matches(source, _stretched(longer, canvas, gaps)) for _ in range(20_000))
    assert possible


def _stretched(rng: random.Random, canvas: Sequence[int], gaps: Sequence[OpenGap]) -> bytes:
    """The text with anything of up to seven letters in its gaps."""
    found, place = b"", 2
    for gap in gaps:
        inside = "".join(rng.choice("abé") for _ in range(rng.randrange(8)))
        found, place = found + (text_of(canvas[place : gap.start]) or b"") + inside.encode(), gap.stop
    return found + (text_of(canvas[place:]) or b"")


@pytest.mark.parametrize("source", PATTERNS)
def test_where_a_gap_may_end(source: str) -> None:
    """Where the text behind it can follow; and then the canvas without its rest can be completed."""
    automaton = ResumedAutomaton(build(Pattern(source)), Vocabulary(PIECES), [STOP], encoded)
    rng, ends = random.Random(source), set()
    for number in range(8):
        canvas, gaps = canvas_of(rng, GAPS[2 * (number % 2)])
        first, others = gaps[0], gaps[1:]
        reach = TextReach(automaton, gaps, 2, canvas, MASK)
        members = [own for own in fillings(canvas, gaps) if matches(source, whole_text(own, gaps))]
        if not members:
            continue
        own = rng.choice(members)
        canvas[first.start : first.stop] = own[first.start : first.stop]
        for count in range(1, first.room + 1):
            if STOP in canvas[first.start : first.start + count]:
                break
            shorter = [*canvas[: first.start + count], *canvas[first.stop :]]
            moved = [
                OpenGap(gap.start - first.room + count, gap.stop - first.room + count, gap.room, gap.bounded)
                for gap in others
            ]
            closed = [OpenGap(first.start, first.start + count, count, False), *moved]
            kept = [
                whole
                for whole in fillings(shorter, closed)
                if whole[: first.start + count] == shorter[: first.start + count]
                and matches(source, whole_text(whole, closed))
            ]
            assert reach.may_end(canvas, first.start + count) == bool(kept)
            ends.add(bool(kept))
            if kept and others and count < first.room:
                # What stands behind a gap that has ended moves up.
                live = [OpenGap(first.start, first.stop, first.room, True), *map(_copied, others)]
                again = TextReach(automaton, live, 2, canvas, MASK)
                live[0].stop, live[1].start, live[1].stop = closed[0].stop, moved[0].start, moved[0].stop
                check(again, list(shorter), moved, kept, number)
    assert True in ends


@pytest.mark.parametrize("source", PATTERNS)
@pytest.mark.parametrize("own", [("a*", None), (None, "b*"), ("(ab|b)*", "a?b?"), ("b*a?é?", "[^b]*")])
def test_a_text_whose_gaps_have_languages_of_their_own(source: str, own: tuple[str | None, str | None]) -> None:
    """Both hold, and a text is divided where its gaps are, not somewhere else."""
    rng, possible = random.Random(source), 0
    for number in range(24):
        if possible == 4:
            break
        canvas, gaps = canvas_of(rng, GAPS[2 + number % 3])
        whole, parts = build(Pattern(source)), [None if one is None else Pattern(one) for one in own]
        automaton = ResumedAutomaton(framed(whole, parts), Vocabulary(PIECES), [STOP], encoded)
        held = [(gap, one) for gap, one in zip(gaps, own, strict=True) if one is not None]
        members = [
            found
            for found in fillings(canvas, gaps)
            if matches(source, whole_text(found, gaps))
            and all(matches(one, text_of(found[gap.start : gap.stop], gap)) for gap, one in held)
        ]
        reach = TextReach(automaton, gaps, 2, canvas, MASK)
        assert reach.possible(canvas) == bool(members)
        if members:
            possible += 1
            forced = dict(reach.forced(canvas))
            assert any(all(found[position] == token for position, token in forced.items()) for found in members)
            check(reach, canvas, gaps, members, number)
    assert possible


def _copied(gap: OpenGap) -> OpenGap:
    return OpenGap(gap.start, gap.stop, gap.room, gap.bounded)


@pytest.mark.parametrize("source", PATTERNS)
def test_what_is_forced_leaves_no_choice_of_text(source: str) -> None:
    """Nor of where a gap ends: a token is forced that stands in all fillings, or whose text all of them begin with."""
    automaton = ResumedAutomaton(build(Pattern(source)), Vocabulary(PIECES), [STOP], encoded)
    rng = random.Random(source)
    for number in range(8):
        canvas, gaps = canvas_of(rng, GAPS[number % len(GAPS)])
        members = [own for own in fillings(canvas, gaps) if matches(source, whole_text(own, gaps))]
        if not members:
            continue
        found = dict(TextReach(automaton, gaps, 2, canvas, MASK).forced(canvas))
        assert any(all(own[position] == token for position, token in found.items()) for own in members)
        for position, token in found.items():
            gap = next(gap for gap in gaps if position in gap.positions)
            before = [found.get(place) for place in range(gap.start, position + 1)]
            known = [own for own in before if own is not None]
            begins = len(known) == len(before) and all(
                (text_of(own[gap.start : gap.stop], gap) or b"").startswith(text_of(known) or b"") for own in members
            )
            assert begins or all(own[position] == token for own in members)


@pytest.mark.parametrize("source", PATTERNS)
@pytest.mark.parametrize("bounded", [True, False])
def test_gaps_with_languages_of_their_own(source: str, bounded: bool) -> None:
    """Each is an answer of its own; a fixed length is kept, and a gap without a language may hold anything."""
    automaton = TokenAutomaton(build(Pattern(source)), Vocabulary(PIECES), [STOP], encoded)
    gap, free = OpenGap(3, 6, 3, bounded), OpenGap(7, 9, 2, bounded)
    canvas = [5, 5, A, MASK, MASK, MASK, B, MASK, MASK]
    members = [own for own in fillings(canvas, [gap]) if matches(source, text_of(own[3:6], gap))]
    reach = Reach(automaton, 0, 3, MASK, whole=not bounded)
    limits = GapLimits([(gap, reach)], len(PIECES))
    assert reach.possible([]) == bool(members)
    if members:
        check(limits, list(canvas), [gap], members, 1)
        assert limits.masks(canvas, [7, 2]).all()
        assert limits.allows(canvas, 8, CONTROL)
        own = random.Random(1).choice(members)
        for count in range(1, 4):
            if STOP not in own[3 : 3 + count]:
                assert limits.may_end(own, 3 + count) == matches(source, text_of(own[3 : 3 + count]))
        assert limits.may_end(own, free.start + 1)
        # A gap that has moved along with the text before it.
        gap.start, gap.stop = 2, 5
        check(limits, canvas[1:], [gap], [own[1:] for own in members], 2)
