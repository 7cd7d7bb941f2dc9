"""Gaps that grow and shrink: what may become of each hole, against all texts over a small vocabulary."""

import random
import re
from itertools import product

import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.vocabulary import Vocabulary
from dllm_plugins.decoding.elastic_limits import ElasticReach
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
