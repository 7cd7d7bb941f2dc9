"""Every decision about a canvas against all of its completions, written out one by one over a small vocabulary."""

import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.vocabulary import Vocabulary

from .small import CONTROL
from .small import MASK
from .small import PIECES
from .small import STOP
from .small import encoded

BEGIN = 2
PATTERNS = ["(ab)*", "a{2,4}b?", "(a|b){3}", "é+a|b", "aba|abab", "[^a]b*", "", "(é|a)*b", "abababa"]


def _member(expression: re.Pattern[str], tokens: Sequence[int]) -> bool:
    """Whether the text up to the first end is one of the language."""
    text = bytearray()
    for token in tokens:
        if token == STOP:
            break
        piece = PIECES[token]
        if piece is None:
            return False
        text += piece
    try:
        return expression.fullmatch(text.decode()) is not None
    except UnicodeDecodeError:
        return False


def _automaton(source: str) -> TokenAutomaton:
    return TokenAutomaton(build(Pattern(source)), Vocabulary(PIECES), [STOP], encoded)


@lru_cache(maxsize=1)
def _members(source: str, room: int) -> list[tuple[int, ...]]:
    expression = re.compile(source)
    return [tokens for tokens in product(range(len(PIECES)), repeat=room) if _member(expression, tokens)]


@pytest.mark.parametrize("source", PATTERNS)
def test_a_token_is_allowed_exactly_where_the_canvas_can_still_be_completed(source: str) -> None:
    """Canvases filled in any order, tokens taken back and written over."""
    rng, room = random.Random(source), 4
    members, automaton = _members(source, room), _automaton(source)
    assert (automaton.shortest in range(room + 1)) == bool(members)
    for _ in range(12 if members else 0):
        reach, canvas = Reach(automaton, BEGIN, BEGIN + room, MASK), [5, 5, *[MASK] * room]
        for _ in range(8):
            fits = [
                tokens
                for tokens in members
                if all(token in (MASK, own) for token, own in zip(canvas[BEGIN:], tokens, strict=True))
            ]
            position = BEGIN + rng.randrange(room)
            others = [place for place in range(room) if BEGIN + place != position]
            around = [
                tokens for tokens in members if all(canvas[BEGIN + place] in (MASK, tokens[place]) for place in others)
            ]
            allowed = {tokens[position - BEGIN] for tokens in around}
            [mask] = reach.masks(canvas, [position])
            assert set(mask.nonzero()[:, 0].tolist()) == allowed
            assert {token for token in range(len(PIECES)) if reach.allows(canvas, position, token)} == allowed
            assert fits, "a canvas that cannot be completed"
            if canvas[position] != MASK and rng.random() < 0.5:
                canvas[position] = MASK
            elif rng.random() < 0.8:
                canvas[position] = rng.choice(sorted(allowed))


@pytest.mark.parametrize("source", PATTERNS)
def test_what_may_come_next_depends_on_the_left_and_on_the_room(source: str) -> None:
    """As a model that writes from left to right asks, drafts standing on the canvas."""
    room = 4
    members, automaton = _members(source, room), _automaton(source)
    for tokens in random.Random(source).sample(members, min(6, len(members))):
        reach, canvas = Reach(automaton, BEGIN, BEGIN + room, MASK), [5, 5, *tokens]
        masks = reach.next_masks(canvas, [*range(BEGIN, BEGIN + room), BEGIN + room])
        for place, mask in enumerate(masks[:-1]):
            allowed = {other[place] for other in members if other[:place] == tokens[:place]}
            found = set(mask.nonzero()[:, 0].tolist())
            # Fewer only where the text is known, and the tokenizer has a way of its own to write it.
            texts = {_text(other) for other in members if other[:place] == tokens[:place]}
            assert found == allowed or (found < allowed and len(found) == 1 and _known_text(tokens[:place], texts))
        assert masks[-1].all()
    if members:
        # Behind a draft that no text begins with nothing is asked for, but something must be said.
        masks = Reach(automaton, BEGIN, BEGIN + room, MASK).next_masks([5, 5, CONTROL], [BEGIN, BEGIN + 1])
        assert not masks[0, CONTROL]
        assert masks[1].all()


@pytest.mark.parametrize("source", [source for source in PATTERNS if source])
def test_forced_tokens_leave_no_choice_of_text(source: str) -> None:
    """Each is in every completion, or its text is; and with them the canvas can still be completed."""
    rng, room = random.Random(source), 4
    expression, automaton = re.compile(source), _automaton(source)
    members = _members(source, room)
    for _ in range(10):
        reach, canvas = Reach(automaton, BEGIN, BEGIN + room, MASK), [5, 5, *[MASK] * room]
        for _ in range(4):
            before = list(canvas)
            for position, token in reach.forced(canvas):
                assert canvas[position] == MASK
                canvas[position] = token
            texts = {_text(tokens) for tokens in members if _fits(before, tokens)}
            left = {_text(tokens) for tokens in members if _fits(canvas, tokens)}
            assert texts >= left
            assert left
            if len(texts) == 1:
                assert texts == left
            opened = [position for position in range(BEGIN, BEGIN + room) if canvas[position] == MASK]
            if not opened:
                assert _member(expression, canvas[BEGIN:])
                break
            position = rng.choice(opened)
            [mask] = reach.masks(canvas, [position])
            canvas[position] = rng.choice(mask.nonzero()[:, 0].tolist())


def _fits(canvas: Sequence[int], tokens: Sequence[int]) -> bool:
    return all(own in (MASK, token) for own, token in zip(canvas[BEGIN:], tokens, strict=True))


def _text(tokens: Sequence[int]) -> bytes:
    end = tokens.index(STOP) if STOP in tokens else len(tokens)
    return b"".join(PIECES[token] or b"" for token in tokens[:end])


def _known_text(tokens: Sequence[int], texts: set[bytes]) -> bool:
    """Whether all texts go on alike for at least a byte."""
    begin = len(_text(tokens))
    return len({text[begin : begin + 1] for text in texts}) == 1


def test_a_text_that_has_to_come_is_written_as_the_tokenizer_writes_it() -> None:
    """Up to the last token where a longer one could stand."""
    automaton = _automaton("aba(b|é)")
    reach = Reach(automaton, 0, 5, MASK)
    assert reach.forced([]) == [(0, PIECES.index(b"aba"))]
    automaton = _automaton("é(a|b)+")
    assert Reach(automaton, 0, 9, MASK).forced([]) == [(0, PIECES.index("é".encode()))]
    # The room may want the same text in fewer tokens than the tokenizer's.
    one = _automaton("abababa(a|b)")
    assert one.shortest == 4
