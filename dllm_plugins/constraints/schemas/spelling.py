"""How answers spell JSON: one layout, the characters of strings, constants.

What stands between two values is always the same, as `json.dumps` writes it by default: one space behind a colon and
behind a comma, and nothing else. So it is known in advance, costs no pass, and no model can spend its room on
white space.
"""

import json
from collections.abc import Iterable
from typing import Any

from dllm_plugins.constraints.characters import Ranges
from dllm_plugins.constraints.characters import in_both
from dllm_plugins.constraints.characters import inverted
from dllm_plugins.constraints.nodes import EMPTY
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown

COMMA, COLON, QUOTE = b", ", b": ", b'"'
NOTHING = Choice(())
#: Characters that stand for themselves in a string.
PLAIN: Ranges = inverted(((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C)))
#: Those that a backslash and one letter spell.
_SHORT = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
#: One character where characters are counted: each has few spellings, so that counting stays cheap.
_FEW = r'[^"\\\x00-\x1f]|\\["\\/bfnrt]'
COUNTED = Pattern(_FEW)
#: One character with all its spellings; halves of surrogate pairs come together only.
FREE = Pattern(
    rf"{_FEW}|\\u(?:[0-9a-cA-CefEF][0-9a-fA-F]{{3}}|[dD][0-7][0-9a-fA-F]{{2}}"
    r"|[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)


def concat(*parts: Node) -> Node:
    """One after another; nothing if one of them is nothing."""
    if NOTHING in parts:
        return NOTHING
    return Concat(tuple(part for part in parts if part != EMPTY))


def choice(options: Iterable[Node]) -> Node:
    """Any of them."""
    # Told apart by identity: comparing trees that share parts would take for ever.
    found = tuple({id(option): option for option in options if option != NOTHING}.values())
    return found[0] if len(found) == 1 else Choice(found)


def quoted(content: Node) -> Node:
    """A string, by what stands between its quotes."""
    return concat(Literal(QUOTE), content, Literal(QUOTE))


def any_string(least: int = 0, most: int | None = None) -> Node:
    """What stands in a string of `least` to `most` characters."""
    if most is not None:
        return Repeat(COUNTED, least, most)
    return concat(Repeat(COUNTED, least, least), Repeat(FREE)) if least else Repeat(FREE)


def one_of(ranges: Ranges) -> Node:
    """One character of a set, as a string spells it; control characters without a letter of their own are left out."""
    plain = in_both(ranges, PLAIN)
    letters = [code for code in _SHORT if in_both(((ord(code), ord(code)),), ranges)]
    escapes = [Literal(f"\\{_SHORT[code]}".encode()) for code in letters]
    return choice([*([Characters(plain)] if plain else []), *escapes])


def constant(value: Any) -> bytes:
    """The text of a JSON value.

    :raises OptionError: for what JSON cannot spell.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(", ", ": ")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(
            f"the schema names {shown(value)}, which is no JSON value ({error}); use numbers that are finite, and "
            f"texts of whole characters"
        ) from error
