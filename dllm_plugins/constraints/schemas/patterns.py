r"""The keyword `pattern`: what a regular expression finds somewhere in a string, as a string of JSON spells it.

Schemas mean the expressions of ECMA 262, in which `\d` and `\w` are ASCII; validators in Python take all of Unicode.
So a class holds here what it holds for both, and an excluded class what either excludes.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from typing import NamedTuple

from dllm_plugins.constraints.characters import ANY
from dllm_plugins.constraints.characters import Ranges
from dllm_plugins.constraints.characters import in_both
from dllm_plugins.constraints.characters import inverted
from dllm_plugins.constraints.characters import merged
from dllm_plugins.constraints.expressions import class_of
from dllm_plugins.constraints.expressions import parsed
from dllm_plugins.constraints.expressions import part
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.schemas.spelling import choice
from dllm_plugins.constraints.schemas.spelling import concat
from dllm_plugins.constraints.schemas.spelling import one_of
from dllm_plugins.errors import OptionError

Items = list[tuple[Any, Any]]
_ANYTHING = Repeat(Characters(ANY))
#: Line breaks of ECMA 262, none of which a dot matches there.
_BREAKS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
_BEGINS, _ENDS = ("AT_BEGINNING", "AT_BEGINNING_STRING"), ("AT_END", "AT_END_STRING")
_LOOKS = ("ASSERT", "ASSERT_NOT")


class _Opened(NamedTuple):
    """One way to read an expression: whether the text begins there, what must or must not follow, and the rest."""

    anchored: bool
    looks: tuple[tuple[bool, Items], ...]
    rest: Items


@lru_cache(maxsize=64)
def searched(source: str) -> Node:
    """What stands between the quotes of a string in which an expression finds a match.

    Look-ahead is taken where the text begins, as generators of schemas write it.

    :raises OptionError: for an expression that cannot be read, or does not describe a regular language.
    """
    items, flags = parsed(source)
    if flags & re.MULTILINE:
        raise OptionError(f"the pattern {source!r} sets the flag m, under which anchors match inside; write it without")
    return _spelled(_search(source, _plain(items, flags), flags, first=False))


def _search(source: str, items: Items, flags: int, *, first: bool) -> Node:
    """Texts in which the items match somewhere, or from the first character on."""
    found = []
    for anchored, looks, rest in _openings(items):
        begins = first or anchored
        for ends, core in _closings(rest):
            inside = part(source, core, flags)
            node = concat(*([] if begins else [_ANYTHING]), inside, *([] if ends else [_ANYTHING]))
            for negative, what in looks:
                if not begins:
                    raise OptionError(
                        f"the pattern {source!r} looks ahead inside the text; write ^ in front, or do without"
                    )
                ahead = _search(source, what, flags, first=True)
                node = Without(node, ahead) if negative else Both(node, ahead)
            found.append(node)
    return choice(found)


def _openings(items: Items) -> Iterator[_Opened]:
    """The ways to read items, with anchors and look-ahead taken from their beginning."""
    if not items:
        yield _Opened(False, (), [])
        return
    (name, value), rest = items[0], items[1:]
    if str(name) == "AT" and str(value) in _BEGINS:
        for _, looks, more in _openings(rest):
            yield _Opened(True, looks, more)
    elif str(name) in _LOOKS and value[0] == 1:
        for anchored, looks, more in _openings(rest):
            yield _Opened(anchored, ((str(name) == "ASSERT_NOT", list(value[1])), *looks), more)
    elif _holds(items[:1], (*_BEGINS, *_LOOKS)) and str(name) in ("SUBPATTERN", "BRANCH"):
        for inside in _inside(name, value):
            yield from _openings([*inside, *rest])
    else:
        yield _Opened(False, (), items)


def _closings(items: Items) -> Iterator[tuple[bool, Items]]:
    """The ways to read items, with anchors taken from their end: whether the text ends there, and the rest."""
    if not items:
        yield False, []
        return
    (name, value), rest = items[-1], items[:-1]
    if str(name) == "AT" and str(value) in _ENDS:
        for _, more in _closings(rest):
            yield True, more
    elif _holds(items[-1:], _ENDS) and str(name) in ("SUBPATTERN", "BRANCH"):
        for inside in _inside(name, value):
            yield from _closings([*rest, *inside])
    else:
        yield False, items


def _inside(name: Any, value: Any) -> list[Items]:
    """What may stand in place of a group or of alternatives."""
    if str(name) == "BRANCH":
        return [list(option) for option in value[1]]
    _, added, removed, items = value
    if added or removed:
        raise OptionError("a pattern has an anchor in a group with flags of its own; write the flags in front of all")
    return [list(items)]


def _holds(value: Any, names: tuple[str, ...]) -> bool:
    """Whether an anchor or an assertion of these names is among the items, however deep."""
    if isinstance(value, tuple | list) or type(value).__name__ == "SubPattern":
        return any(_holds(item, names) for item in value)
    return str(value) in names


def _plain(items: Any, flags: int) -> Any:
    """The same items, with classes of characters and dots as ranges."""
    if isinstance(items, list) or type(items).__name__ == "SubPattern":
        return [_plain(item, flags) for item in items]
    if not isinstance(items, tuple):
        return items
    if str(items[0]) == "ANY" and not flags & re.DOTALL:
        return "IN", _ranges(inverted(_BREAKS))
    if str(items[0]) == "IN":
        negated = any(str(name) == "NEGATE" for name, _ in items[1])
        return "IN", [one for name, value in items[1] for one in _members(name, value, negated)]
    return tuple(_plain(item, flags) for item in items)


def _members(name: Any, value: Any, negated: bool) -> Items:
    if str(name) != "CATEGORY":
        return [(name, value)]
    both = [class_of(str(value), re.ASCII), class_of(str(value), 0)]
    return _ranges(merged([*both[0], *both[1]]) if negated else in_both(*both))


def _ranges(ranges: Ranges) -> Items:
    return [("RANGE", pair) for pair in ranges]


def _spelled(node: Node) -> Node:  # noqa: PLR0911
    """The same texts as JSON spells them."""
    match node:
        case Characters(ranges):
            return one_of(ranges)
        case Concat(parts):
            return concat(*map(_spelled, parts))
        case Choice(options):
            return choice(map(_spelled, options))
        case Repeat(what, least, most):
            return Repeat(_spelled(what), least, most)
        case Both(left, right):
            return Both(_spelled(left), _spelled(right))
        case Without(what, never):
            return Without(_spelled(what), _spelled(never))
    return node
