"""Grammars against an independent parser of the same notation, in both directions."""

import random
import re

import pytest
from lark import Lark
from lark.exceptions import LarkError

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.grammar import rules_of
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.errors import OptionError

from .members import members

ARITHMETIC = """
start: sum
sum: product | sum "+" product | sum "-" product
product: atom | product "*" atom
atom: NUMBER | "-" atom | "(" sum ")"   // nests
%import common.INT -> NUMBER
"""
GRAMMARS = {
    "arithmetic": ARITHMETIC,
    "lists and choices": 'start: item | start "," item\nitem: "a".."c" | "x"i~2..3 | [item ";"] "y" -> other',
    "right": 'start: "a" start | "b"',
    "ambiguous": 'start: start "+" start | "n"',
    "palindromes": 'start: "a" start "a" | "b" start "b" | "c"',
    "s-expressions": 'start: list\nlist: "(" [elem (" " elem)*] ")"\nelem: SYM | list\nSYM: /[a-z]+/',
    "mutual": 'start: a\na: "x" b | "y"\nb: "z" a | "w"',
    "common": "start: WORD | ESCAPED_STRING\n%import common (WORD, ESCAPED_STRING)",
}
LETTERS = 'ab(),;+*-12x" nyzwcX'


def _parses(parser: Lark, text: str) -> bool:
    try:
        parser.parse(text)
    except LarkError:
        return False
    return True


@pytest.mark.parametrize("name", GRAMMARS)
def test_sentences_are_what_another_parser_takes(name: str) -> None:
    """Every walk through the automaton is a sentence; every short sentence is accepted, and nothing else."""
    rng, automaton = random.Random(name), build(rules_of(GRAMMARS[name]))
    parser = Lark(GRAMMARS[name], parser="earley", lexer="dynamic_complete")
    walks = [walk for walk in members(rules_of(GRAMMARS[name]), seed=1, count=60, longest=20) if walk.isascii()]
    assert walks
    for walk in walks:
        assert _parses(parser, walk), walk
    texts = {"".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 5))) for _ in range(250)}
    for text in [*texts, *(walk[: rng.randint(1, len(walk))] for walk in walks if walk)]:
        assert automaton.accepts(text.encode()) == _parses(parser, text), text


def test_brackets_nest_as_deep_as_there_is_room_for() -> None:
    """What circles of an automaton can do has no bound; what nests has one."""
    automaton = build(rules_of(ARITHMETIC))
    assert automaton.accepts(b"1" + b"+1" * 500)
    assert automaton.accepts(b"(" * 10 + b"1" + b")" * 10)
    assert not automaton.accepts(b"(" * 40 + b"1" + b")" * 40)
    assert not automaton.accepts(b"(1))")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("start: (", "cannot be read at line 1"),
        ('begin: "a"', "no rule 'start'"),
        ("start: other", "names 'other', for which it has no rule"),
        ('start: "a"\nstart: "b"', "two rules 'start'"),
        ('start: "a"\n%ignore " "', "%ignore; write white space"),
        ('start: pair{"a"}\npair{x}: x x', "a template"),
        ('start: "a"~3..2', "from 3 to 2 times"),
        ("start: A\n%import python.NAME -> A", "only terminals of Lark's `common`"),
        ("start: /a(?=b)/", "look-around"),
    ],
)
def test_what_is_no_language_is_refused(source: str, words: str) -> None:
    """By its name, with what to do."""
    with pytest.raises(OptionError, match=re.escape(words)):
        build(rules_of(source))


def test_answers_are_sentences(default_model: Model) -> None:
    """In every mode of the default model; drafts change nothing."""
    engine, parser = default_model.engine(), Lark(ARITHMETIC, parser="earley", lexer="dynamic_complete")
    prompt = default_model.encode_chat([{"role": "user", "content": "Write twelve as a sum in brackets."}])
    found = {}
    for mode in ("ar", "speculative", "diffusion"):
        config = SamplingConfig(mode=mode, max_new_tokens=24, constraint=Grammar(ARITHMETIC), temperature=0.9, seed=2)
        found[mode] = engine.generate([Request(prompt, config)])[0]
        assert _parses(parser, found[mode].text)
    assert found["speculative"].tokens == found["ar"].tokens
