"""Gaps that grow and shrink: what may become of each hole, against all texts over a small vocabulary."""

import random
import re
from collections.abc import Sequence
from itertools import product

import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.framing import framed
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.vocabulary import Vocabulary
from dllm_plugins.decoding.elastic_limits import ElasticReach
from dllm_plugins.decoding.elastic_limits import ElasticText
from dllm_plugins.decoding.gap_limits import ResumedAutomaton
from dllm_plugins.decoding.row import OpenGap

from .small import CONTROL
from .small import MASK
from .small import PIECES
from .small import STOP
from .small import encoded

ROOM = 3
PATTERNS = ["(ab)*", "a{2,6}b?a*", "(a|b){3,5}", "(é|a)*b?", "abaab|b|é", "", "(ab){4}", "a|(é|b){2}b"]


def texts(source: str) -> list[str]:
    """All texts of the language, a letter for each token."""
    found = []
    for length in range(ROOM + 1):
        for tokens in product(range(2, len(PIECES)), repeat=length):
            try:
                text = b"".join(PIECES[token] or b"" for token in tokens).decode()
            except UnicodeDecodeError:
                continue
            if re.fullmatch(source, text):
                found.append(_spelled(list(tokens)))
    return found


def _spelled(tokens: list[int]) -> str:
    return "".join(chr(65 + token) for token in tokens)


def possible(tokens: list[int], members: list[str]) -> bool:
    """Whether holes may become as many tokens as they like, so that one of the texts comes out."""
    pattern = re.compile("".join(".*" if token == MASK else chr(65 + token) for token in tokens))
    return any(pattern.fullmatch(member) for member in members)


@pytest.mark.parametrize("source", PATTERNS)
def test_what_may_become_of_holes(source: str) -> None:
    """Tokens, two holes, or none, in any order, until nothing is open; some hole can always do something."""
    never = [STOP, CONTROL]
    automaton = TokenAutomaton(build(Pattern(source)), Vocabulary(PIECES), (), encoded, never)
    members = texts(source)
    assert (0 <= automaton.shortest <= ROOM) == bool(members)
    for seed in range(12 if members else 0):
        rng, tokens, doubled = random.Random(seed), [MASK] * (1 + seed % 3), 0
        gap = OpenGap(0, ROOM, ROOM, True)
        reach = ElasticReach(automaton, gap, MASK, CONTROL, STOP)
        assert reach.possible(tokens)
        while MASK in tokens:
            moves = []
            gap.grows = doubled < 3
            for place in (place for place, token in enumerate(tokens) if token == MASK):
                before, behind = tokens[:place], tokens[place + 1 :]
                [mask] = reach.masks(tokens, [place])
                allowed = set(mask.nonzero()[:, 0].tolist())
                fits = {token for token in range(2, len(PIECES)) if possible([*before, token, *behind], members)}
                assert allowed - {STOP, CONTROL} == fits
                if gap.grows:
                    assert (STOP in allowed) == possible([*before, *behind], members)
                    assert (CONTROL in allowed) == (len(tokens) < ROOM)
                assert {token for token in range(len(PIECES)) if reach.allows(tokens, place, token)} == allowed
                moves += [(place, token) for token in allowed]
            place, token = rng.choice(moves)
            tokens[place : place + 1] = {STOP: [], CONTROL: [MASK, MASK]}.get(token, [token])
            doubled += token == CONTROL
            assert doubled < 9
            assert possible(tokens, members)
            assert len(tokens) <= ROOM
        assert _spelled(tokens) in members
        assert reach.may_end(tokens, len(tokens))


#: A language, and what each of two gaps must be by itself; they have room for two tokens and one, or for one and two.
WHOLES = [
    ("(ab)*", (None, None)),
    ("(a|b){3,6}", ("a*", None)),
    ("(é|a)*b?a*", (None, "(ab|é)?")),
    ("[ab]*é?b?", ("(ab|b)*", "a*b?")),
    ("a{2,6}b?a*b*", ("a*", "[^b]*")),
]
#: Before the first gap, between the two, behind the second: halves of a character, a control token.
FIXED = [([2], [3], []), ([], [3, 1], [2]), ([8], [9], [3]), ([4], [], [4]), ([2], [8], [9, 2])]


def spelled(tokens: Sequence[int]) -> bytes:
    return b"".join(PIECES[token] or b"" for token in tokens)


def fits(source: str | None, text: bytes) -> bool:
    try:
        return source is None or re.fullmatch(source, text.decode()) is not None
    except UnicodeDecodeError:
        return False


class TwoGaps:
    """A text with two gaps, and all that may stand in them.

    :param fixed: what stands before the first gap, between the two, and behind the second.
    """

    def __init__(self, rooms: Sequence[int], bounded: Sequence[bool], fixed: Sequence[list[int]]) -> None:
        self.gaps = [OpenGap(0, 0, room, less) for room, less in zip(rooms, bounded, strict=True)]
        self.inside = [[MASK] * room for room in rooms]
        self.members: list[tuple[list[int], ...]] = []
        self._fixed = fixed

    def canvas(self) -> list[int]:
        """All of it, behind a token that is none of the text; the gaps know where they are."""
        canvas = [5, *self._fixed[0]]
        for gap, text, behind in zip(self.gaps, self.inside, self._fixed[1:], strict=True):
            gap.start, gap.stop = len(canvas), len(canvas) + len(text)
            canvas += [*text, *behind]
        return canvas

    def find(self, source: str, own: Sequence[str | None]) -> None:
        """Keep the fillings that make it a text of the language, each gap one of its own."""
        before, between, after = self._fixed
        each = [
            [
                list(text)
                for count in range(0 if gap.bounded else gap.room, gap.room + 1)
                for text in product(range(2, len(PIECES)), repeat=count)
            ]
            for gap in self.gaps
        ]
        self.members = [
            pair
            for pair in product(*each)
            if fits(source, spelled([*before, *pair[0], *between, *pair[1], *after]))
            and all(fits(one, spelled(text)) for one, text in zip(own, pair, strict=True))
        ]

    def holes(self) -> list[tuple[int, int]]:
        """Gaps and places in them that are open."""
        return [(n, place) for n, text in enumerate(self.inside) for place, token in enumerate(text) if token == MASK]

    def possible(self, number: int, place: int, put: list[int]) -> bool:
        """Whether a filling is left with these tokens in place of a hole."""
        texts = [list(text) for text in self.inside]
        texts[number][place : place + 1] = put
        pairs = zip(self.gaps, texts, strict=True)
        patterns = [
            "".join((".*" if gap.bounded else ".") if token == MASK else chr(65 + token) for token in text)
            for gap, text in pairs
        ]
        return any(
            all(re.fullmatch(one, _spelled(text)) for one, text in zip(patterns, pair, strict=True))
            for pair in self.members
        )


@pytest.mark.parametrize(("source", "own"), WHOLES)
@pytest.mark.parametrize("bounded", [(True, True), (True, False)])
def test_a_whole_text_whose_gaps_grow(
    source: str, own: tuple[str | None, str | None], bounded: tuple[bool, bool]
) -> None:
    """Every decision against all fillings of both gaps; some hole can always do something, and the end is a member."""
    parts, whole = [None if one is None else Pattern(one) for one in own], build(Pattern(source))
    whole = framed(whole, parts) if any(own) else whole
    automaton = ResumedAutomaton(whole, Vocabulary(PIECES), (), encoded, [STOP, CONTROL])
    filled = 0
    for seed in range(10):
        rng, doubled = random.Random(seed), 0
        text = TwoGaps([(2, 1), (1, 2)][seed % 2], bounded, FIXED[seed % len(FIXED)])
        text.find(source, own)
        canvas = text.canvas()
        reach = ElasticText(automaton, text.gaps, 1, canvas, MASK, CONTROL, STOP)
        assert reach.possible(canvas) == bool(text.members)
        text.inside = [[MASK] * (1 if gap.bounded else gap.room) for gap in text.gaps]
        while text.members and (holes := text.holes()):
            canvas, moves = text.canvas(), list[tuple[int, int, int]]()
            for number, place in holes:
                gap = text.gaps[number]
                gap.grows = doubled < 3
                position = gap.start + place
                allowed = set(reach.masks(canvas, [position])[0].nonzero()[:, 0].tolist())
                fitting = {token for token in range(2, len(PIECES)) if text.possible(number, place, [token])}
                assert allowed - {STOP, CONTROL} == fitting
                if not gap.bounded:
                    assert allowed == fitting
                elif gap.grows:
                    assert (STOP in allowed) == text.possible(number, place, [])
                    assert (CONTROL in allowed) == (len(text.inside[number]) < gap.room)
                assert {token for token in range(len(PIECES)) if reach.allows(canvas, position, token)} == allowed
                moves += [(number, place, token) for token in allowed]
            number, place, token = rng.choice(moves)
            text.inside[number][place : place + 1] = {STOP: [], CONTROL: [MASK, MASK]}.get(token, [token])
            doubled += token == CONTROL
            assert doubled < 12
        if text.members:
            filled += 1
            assert tuple(text.inside) in text.members
    assert filled
