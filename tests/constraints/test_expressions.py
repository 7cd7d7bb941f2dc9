"""Regular expressions as automata: Python's own matcher says what is right."""

import random
import re

import pytest

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.characters import ANY
from dllm_plugins.constraints.characters import LAST
from dllm_plugins.constraints.characters import in_both
from dllm_plugins.constraints.characters import inverted
from dllm_plugins.constraints.characters import merged
from dllm_plugins.constraints.characters import spelled
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.errors import OptionError

from .members import members

PATTERNS = [
    "",
    "a|bc*",
    "[0-9]{1,3}",
    "(é|ü)+x",
    r'"([^"\\\x00-\x1f]|\\["\\/bfnrt]){0,60}"',
    ".{3}",
    "(?i)abcſ",
    "^a|b$",
    "(?i:k)K",
    r"[^\W\d_]{2,3}",
    r"\w+@x\.(com|org)",
    "(a*)*b",
    r"\s\S\D",
    r"(?a)\w+é?",
    "x{3,}",
    "(?x) a b # c",
    "(?s).",
    "[\u4e00-\u9fff]{1,4}!?",
    r"[^a-y\n]",
    "(a|b){0,3}?c",
    "(foo|bar|foobar)(bar)?",
    r"\A1\Z",
    r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,6})?([eE][-+]?[0-9]{1,2})?",
]
LETTERS = 'abcxyzkK0129 "\\n.-+eEéüſK@!\n\t_中😀\u2028\u07ff\u0800'


@pytest.mark.parametrize("source", PATTERNS)
def test_an_automaton_accepts_what_the_expression_matches(source: str) -> None:
    """In both directions: random texts, and random walks through the automaton."""
    rng, automaton, expression = random.Random(source), build(Pattern(source)), re.compile(source)
    for _ in range(600):
        text = "".join(rng.choice(LETTERS) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 5])))
        assert automaton.accepts(text.encode()) == (expression.fullmatch(text) is not None), text
    for walk in members(Pattern(source), seed=1, count=60):
        assert expression.fullmatch(walk) is not None, walk


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("(?=a)b", "look-around"),
        (r"(a)\1", "a back reference"),
        (r"\bfoo", r"\b"),
        ("(", "no regular expression"),
        ("a^b", "an anchor inside"),
        ("a$b", "an anchor inside"),
        ("(a|^b)c^", "an anchor inside"),
        ("a++", "a possessive repetition"),
        ("(?>a)", "an atomic group"),
        (".*a.{20}", "more than 20000 states"),
    ],
)
def test_what_is_not_regular_is_refused_by_its_name(source: str, what: str) -> None:
    """Nothing is ignored in silence."""
    with pytest.raises(OptionError, match=re.escape(what)):
        build(Pattern(source))


def test_sets_of_characters_are_spelled_exactly() -> None:
    """Each character of a set fits one sequence of byte ranges, any other none."""
    rng = random.Random(1)
    edges = [0, 0x7E, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, LAST, 0xFFF, 0x1000, 0x3FFFF, 0x40000]
    for _ in range(60):
        points = sorted(rng.sample(edges + [rng.randrange(LAST) for _ in range(10)], 4))
        ranges = merged([(points[0], points[1]), (points[2], points[3])])
        sequences = list(spelled(ranges))
        assert inverted(inverted(ranges)) == in_both(ranges, ANY)
        for code in {*edges, *(point + by for point in points for by in (-1, 0, 1)), rng.randrange(LAST)}:
            if 0 <= code <= LAST and not 0xD800 <= code <= 0xDFFF:
                text = chr(code).encode()
                fits = [
                    len(text) == len(sequence)
                    and all(low <= byte <= high for byte, (low, high) in zip(text, sequence, strict=True))
                    for sequence in sequences
                ]
                assert sum(fits) == any(first <= code <= last for first, last in ranges)


def test_languages_are_intersected_and_taken_apart() -> None:
    """Both and Without are what they say, the empty language among them."""
    words, evens = Pattern("[ab]{1,4}"), Repeat(Pattern(".."))
    both, odd = build(Both(words, evens)), build(Without(words, evens))
    for length in range(6):
        for number in range(1 << length):
            text = "".join("ab"[number >> place & 1] for place in range(length)).encode()
            assert both.accepts(text) == (1 <= length <= 4 and length % 2 == 0)
            assert odd.accepts(text) == (1 <= length <= 4 and length % 2 == 1)
    assert build(Both(Literal(b"a"), Literal(b"b"))).empty
    assert build(Choice(())).empty
    assert build(Without(Literal(b"a"), Literal(b"a"))).empty
    assert not build(Without(Literal(b"a"), Choice(()))).empty
