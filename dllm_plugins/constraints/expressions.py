"""Regular expressions in the syntax of Python's `re`, read by Python's own parser, as trees of regular languages.

The parser is not public; `tests/constraints/test_expressions.py` compares what is read here with what `re` matches.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any
from typing import NamedTuple
from typing import NoReturn

from dllm_plugins.constraints.characters import ANY
from dllm_plugins.constraints.characters import Ranges
from dllm_plugins.constraints.characters import in_both
from dllm_plugins.constraints.characters import inverted
from dllm_plugins.constraints.characters import merged
from dllm_plugins.constraints.nodes import EMPTY
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.errors import OptionError

#: A name of Python's that type checkers may or may not know.
parser: Any = import_module("re._parser")
_CLASSES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_NAMES = {
    "ASSERT": "look-around (?=...)",
    "ASSERT_NOT": "look-around (?!...)",
    "GROUPREF": "a back reference",
    "GROUPREF_EXISTS": "a condition on a group",
    "AT_BOUNDARY": r"\b",
    "AT_NON_BOUNDARY": r"\B",
    "POSSESSIVE_REPEAT": "a possessive repetition",
    "ATOMIC_GROUP": "an atomic group",
}


def parse(source: str) -> Node:
    """The texts that an expression matches as a whole.

    :raises OptionError: for one that Python cannot read, or that does not describe a regular language.
    """
    items, flags = parsed(source)
    return _Reader(source).sequence(items, flags, _Ends(True, True))


def parsed(source: str) -> tuple[list[tuple[Any, Any]], int]:
    """An expression as Python's parser reads it: items by name and value, and flags.

    :raises OptionError: for one that Python cannot read.
    """
    try:
        tree = parser.parse(source)
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(
            f"{source!r} is no regular expression ({error}); mend it, or escape its characters"
        ) from error
    return list(tree), tree.state.flags


def part(source: str, items: Sequence[tuple[Any, Any]], flags: int) -> Node:
    """The texts that items match from within an expression, where no anchor may stand.

    :raises OptionError: for what does not describe a regular language.
    """
    return _Reader(source).sequence(items, flags)


class _Ends(NamedTuple):
    """Whether a part stands at the beginning and at the end of the text, where anchors say nothing."""

    first: bool
    last: bool


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source

    def sequence(self, items: Sequence[tuple[Any, Any]], flags: int, ends: _Ends = _Ends(False, False)) -> Node:  # noqa: B008
        """One item after another."""
        parts, anchored = [], True
        for place, (name, value) in enumerate(items):
            own = _Ends(ends.first and anchored, ends.last and place == len(items) - 1)
            parts.append(self._item(str(name), value, flags, own))
            anchored = anchored and str(name) == "AT"
        return Concat(tuple(parts))

    def _item(self, name: str, value: Any, flags: int, ends: _Ends) -> Node:  # noqa: PLR0911
        match name:
            case "LITERAL":
                return Characters(_cased(((value, value),), flags))
            case "NOT_LITERAL":
                return Characters(inverted(_cased(((value, value),), flags)))
            case "ANY":
                return Characters(ANY if flags & re.DOTALL else inverted(((10, 10),)))
            case "IN":
                return Characters(self._set(value, flags))
            case "BRANCH":
                return Choice(tuple(self.sequence(part, flags, ends) for part in value[1]))
            case "SUBPATTERN":
                _, added, removed, part = value
                return self.sequence(part, (flags | added) & ~removed, ends)
            case "MAX_REPEAT" | "MIN_REPEAT":
                least, most, part = value
                inside = self.sequence(part, flags)
                return Repeat(inside, int(least), None if most == parser.MAXREPEAT else int(most))
            case "AT" if str(value) in ("AT_BEGINNING", "AT_BEGINNING_STRING") and ends.first:
                return EMPTY
            case "AT" if str(value) in ("AT_END", "AT_END_STRING") and ends.last:
                return EMPTY
        self._refuse(str(value) if name == "AT" else name)

    def _refuse(self, name: str) -> NoReturn:
        what = _NAMES.get(name, "an anchor inside" if name.startswith("AT_") else name.lower())
        raise OptionError(
            f"the regular expression {self._source!r} holds {what}, which no constraint can have; write it without"
        )

    def _set(self, items: Sequence[tuple[Any, Any]], flags: int) -> Ranges:
        found: list[tuple[int, int]] = []
        inverts = False
        for name, value in items:
            match str(name):
                case "NEGATE":
                    inverts = True
                case "LITERAL":
                    found += _cased(((value, value),), flags)
                case "RANGE":
                    found += _cased((value,), flags)
                case "CATEGORY":
                    found += class_of(str(value), flags & re.ASCII)
                case other:
                    self._refuse(other)
        return inverted(merged(found)) if inverts else in_both(merged(found), ANY)


@lru_cache(maxsize=16)
def class_of(name: str, ascii_only: int) -> Ranges:
    """The characters of a class by the parser's name of it, such as CATEGORY_DIGIT, as `re` itself tells."""
    return _matched(re.compile(f"{_CLASSES[name]}+", re.ASCII if ascii_only else 0))


def _matched(runs: re.Pattern[str]) -> Ranges:
    """All characters that an expression for runs of characters matches."""
    found = [(ord(run[0][0]), ord(run[0][-1])) for run in runs.finditer(_every())]
    # The surrogates are left out of the alphabet, so a run may span them.
    return in_both(merged(found), ANY)


@lru_cache(maxsize=1)
def _every() -> str:
    """Every character there is."""
    return "".join(chr(code) for first, last in ANY for code in range(first, last + 1))


def _cased(ranges: Ranges, flags: int) -> Ranges:
    """With the other case of every letter, if case is ignored, as `re` itself tells."""
    if not flags & re.IGNORECASE:
        return in_both(merged(ranges), ANY)
    letters = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
    return _ignoring_case(letters, flags & re.ASCII)


@lru_cache(maxsize=256)
def _ignoring_case(letters: str, ascii_only: int) -> Ranges:
    expression = re.compile(f"[{letters}]", re.IGNORECASE | (re.ASCII if ascii_only else 0))
    others = ((ord(letter), ord(letter)) for letter in _letters() if expression.match(letter))
    return merged([*_matched(re.compile(f"[{letters}]+")), *others])


@lru_cache(maxsize=1)
def _letters() -> str:
    """The characters that have another case."""
    return "".join(letter for letter in _every() if letter != letter.lower() or letter != letter.upper())
