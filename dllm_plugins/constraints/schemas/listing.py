"""What stands between brackets: entries in order, with commas between them."""

from collections.abc import Sequence

from dllm_plugins.constraints.nodes import EMPTY
from dllm_plugins.constraints.nodes import Behind
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import optional
from dllm_plugins.constraints.schemas.spelling import COMMA
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.spelling import choice
from dllm_plugins.constraints.schemas.spelling import concat

_COMMA = Literal(COMMA)


def listed(entries: Sequence[tuple[Node, bool]], further: Node = NOTHING) -> Node:
    """Entries in their order, and behind them any number of further ones.

    :param entries: each with whether it must be there.
    """
    later = [concat(_COMMA, node) if needed else optional(concat(_COMMA, node)) for node, needed in entries]
    if further != NOTHING:
        later.append(Repeat(concat(_COMMA, further)))
    if entries and entries[0][1]:
        return concat(entries[0][0], *later[1:])
    return without_first_comma(concat(*later), may_be_empty=not any(needed for _, needed in entries))


def counted(entry: Node, least: int, most: int | None) -> Node:
    """So many entries, in any order."""
    if most == 0 or entry == NOTHING:
        return EMPTY if least == 0 else NOTHING
    several = Repeat(concat(_COMMA, entry), max(least, 1), most)
    return without_first_comma(several, may_be_empty=least == 0)


def within(whole: Node, entries: Sequence[Node], least: int, most: int | None) -> Node:
    """A list of some of these entries, as long as it has so many."""
    return Both(whole, counted(choice(entries), least, most))


def chain(entries: Sequence[Node], more: Node, least: int) -> Node:
    """The first entries in their order, of which the later ones may be missing, and `more` behind all of them.

    :param more: begins with a comma, if it is not empty.
    """
    tail = more
    for place in reversed(range(len(entries))):
        here = concat(_COMMA, entries[place], tail)
        tail = here if place < least else optional(here)
    return without_first_comma(tail, may_be_empty=least == 0)


def repeated(entry: Node, least: int, most: int | None) -> Node:
    """So many entries, each behind a comma."""
    return EMPTY if most == 0 or (entry == NOTHING and least == 0) else Repeat(concat(_COMMA, entry), least, most)


def without_first_comma(node: Node, *, may_be_empty: bool) -> Node:
    """Entries that each begin with a comma, as they stand in a list."""
    if node in (EMPTY, NOTHING):
        return EMPTY if may_be_empty else NOTHING
    found = Behind(COMMA, node)
    return optional(found) if may_be_empty else found
