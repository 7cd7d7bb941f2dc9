"""A text of a language whose parts belong to languages of their own: marks say where these parts begin and end.

Without marks a text could be divided in other places than those where its gaps are. A mark is a byte that no text in
UTF-8 holds.
"""

from collections.abc import Sequence

import numpy as np

from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import product
from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Repeat

MARK = 0xFF
_MARK = Literal(bytes([MARK]))
#: Bytes, not characters: a part may begin or end inside one.
_ANYTHING = Repeat(Choice(tuple(Literal(bytes([byte])) for byte in range(MARK))))


def framed(whole: Automaton, parts: Sequence[Node | None]) -> Automaton:
    """The texts of a language with a mark before and behind each part, which belongs to its own language.

    :param parts: in their order; None for one that may be anything.
    :raises OptionError: if it grows out of hand.
    """
    frame: list[Node] = [_ANYTHING]
    for part in parts:
        frame += [_MARK, _ANYTHING if part is None else part, _MARK, _ANYTHING]
    table = whole.table.copy()
    table[:, MARK] = np.arange(len(table))
    return product(Automaton(table, whole.accepting), build(Concat(tuple(frame))))
