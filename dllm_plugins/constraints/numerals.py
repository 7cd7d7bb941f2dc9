"""Automata that count: numerals whose value can be divided."""

import numpy as np

from dllm_plugins.constraints.automaton import START
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import check_size
from dllm_plugins.constraints.automaton import minimal

_DIGITS = range(ord("0"), ord("9") + 1)
_POINT = ord(".")
#: The state behind a zero at the beginning, which no digit may follow; remainders come after it.
_ZERO, _FIRST = 2, 3


def multiples(of: int, places: int) -> Automaton:
    """The automaton of :class:`~dllm_plugins.constraints.nodes.Multiples`.

    A state is the remainder of the digits read so far, in a group for those before the point and in one for
    each number of places behind it.

    :raises OptionError: for a divisor that needs too many states.
    """
    groups = 1 if places == 0 else places + 2
    check_size(of * groups)
    table = np.zeros((_FIRST + of * groups, 256), np.int32)
    remainders = np.arange(of)
    for digit, byte in enumerate(_DIGITS):
        following = (remainders * 10 + digit) % of
        table[START, byte] = _FIRST + digit % of if digit else _ZERO
        table[_FIRST : _FIRST + of, byte] = _FIRST + following
        for group in range(1, groups - 1):
            begin = _FIRST + group * of
            table[begin : begin + of, byte] = begin + of + following
    accepting = np.zeros(len(table), np.bool_)
    accepting[_FIRST + (groups - 1) * of] = True
    if places:
        table[_FIRST : _FIRST + of, _POINT] = _FIRST + of + remainders
        table[_ZERO, _POINT] = _FIRST + of
    else:
        accepting[_ZERO] = True
    return minimal(table, accepting)
