"""Finite automata over bytes: one next state for each state and byte, the least number of states.

State 0 is the dead one: no text that leads there can be completed. State 1 is where every text begins.
Unlike a matcher that is only asked what may come next, an automaton can be run from both ends of a text whose
middle is not written yet; that is why ours is a plain table.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.errors import OptionError

DEAD, START = 0, 1
#: More would be minutes of work and gigabytes.
MOST_STATES = 20_000


@dataclass(frozen=True, eq=False)
class Automaton:
    """A regular language.

    :param table: next states, int32 [S, 256].
    :param accepting: where a text may end, bool [S].
    """

    table: NDArray[np.int32]
    accepting: NDArray[np.bool_]

    @property
    def empty(self) -> bool:
        """Whether no text belongs to the language."""
        return len(self.table) <= START or not self.accepting.any()

    @cached_property
    def ranges(self) -> list[list[tuple[int, int, int]]]:
        """The same table as (first byte, last byte, next state) by state, without the dead one."""
        found: list[list[tuple[int, int, int]]] = []
        for row in self.table:
            cuts = np.flatnonzero(np.diff(row)) + 1
            firsts, lasts = [0, *cuts.tolist()], [*(cuts - 1).tolist(), 255]
            targets = row[firsts].tolist()
            found.append([way for way in zip(firsts, lasts, targets, strict=True) if way[2] != DEAD])
        return found

    def after(self, text: bytes, state: int = START) -> int:
        """Where a text leads."""
        for byte in text:
            state = int(self.table[state, byte])
        return state

    def accepts(self, text: bytes) -> bool:
        """Whether a text belongs to the language."""
        return not self.empty and bool(self.accepting[self.after(text)])


def check_size(states: int) -> None:
    """Refuse what grows out of hand.

    :raises OptionError: for too many states.
    """
    if states > MOST_STATES:
        raise OptionError(
            f"the constraint needs more than {MOST_STATES} states; make it smaller: lower the bounds of repetitions "
            f"({{0,200}}, maxLength, maxItems), or leave them out"
        )


def minimal(table: NDArray[np.int32], accepting: NDArray[np.bool_]) -> Automaton:
    """The smallest automaton of the same language.

    :param table: int32 [S, 256], state 0 dead, state 1 the first.
    :param accepting: bool [S].
    """
    # Most bytes lead to the same states from everywhere: one of each kind is enough. Kinds of bytes, and then states,
    # are told apart by hashes of where they lead. Even factors would lose bits.
    rng = np.random.default_rng(2026)
    factors = rng.integers(1, 1 << 63, max(table.shape) + 1, dtype=np.uint64) | np.uint64(1)
    _, kinds = np.unique(factors[: len(table)] @ table.astype(np.uint64), return_index=True)
    live = _live(table[:, kinds], accepting)
    table = np.where(live[table], table, DEAD).astype(np.int32)
    # Moore's refinement.
    columns, factors = table[:, kinds], factors[: len(kinds) + 1]
    names = accepting.astype(np.uint64) + live.astype(np.uint64)
    count = len(np.unique(names))
    while True:
        signs = names * factors[0] + (names[columns] * factors[1:]).sum(axis=1)
        classes, found = np.unique(signs, return_inverse=True)
        if len(classes) == count:
            return _merged(table, accepting & live, found.astype(np.int64))
        count, names = len(classes), found.astype(np.uint64)


def _merged(table: NDArray[np.int32], accepting: NDArray[np.bool_], names: NDArray[np.int64]) -> Automaton:
    """One state for each name; the dead and the first keep their numbers."""
    if names[DEAD] == names[START]:
        return Automaton(np.zeros((1, 256), np.int32), np.zeros(1, np.bool_))
    _, first = np.unique(names, return_index=True)
    order = [int(names[DEAD]), int(names[START])]
    order += [name for name in range(len(first)) if name not in order[:2]]
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    members = first[order]
    return Automaton(number[names[table[members]]], accepting[members])


def _live(table: NDArray[np.int32], accepting: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """From which states a text can be completed, bool [S]; a column for each kind of byte."""
    live = accepting.copy()
    while True:
        found = live | live[table].any(axis=1)
        if (found == live).all():
            return live
        live = found


def behind(whole: Automaton, beginning: bytes) -> Automaton:
    """What follows a beginning in the texts that have it."""
    state = DEAD if whole.empty else whole.after(beginning)
    if state == DEAD:
        return minimal(np.zeros((2, 256), np.int32), np.zeros(2, np.bool_))
    # The state behind the beginning changes places with the first one.
    order = np.arange(len(whole.table), dtype=np.int32)
    order[[START, state]] = state, START
    return minimal(order[whole.table[order]], whole.accepting[order])


def product(left: Automaton, right: Automaton, *, without: bool = False) -> Automaton:
    """What both allow, or what `left` allows and `right` does not.

    :raises OptionError: if it grows out of hand.
    """
    if right.empty:
        return left if without else right
    if left.empty:
        return left
    pairs = [(DEAD, DEAD), (START, START)]
    number = {pair: place for place, pair in enumerate(pairs)}
    rows: list[NDArray[np.int32]] = [np.zeros(256, np.int32)]
    while len(rows) < len(pairs):
        check_size(len(pairs))
        one, other = pairs[len(rows)]
        both = left.table[one].astype(np.int64) * len(right.table) + right.table[other]
        keys, where = np.unique(both, return_inverse=True)
        targets = []
        for key in keys.tolist():
            pair = divmod(key, len(right.table))
            dead = pair[0] == DEAD or (pair[1] == DEAD and not without)
            pair = (DEAD, DEAD) if dead else pair
            if pair not in number:
                number[pair] = len(pairs)
                pairs.append(pair)
            targets.append(number[pair])
        rows.append(np.array(targets, np.int32)[where.reshape(-1)])
    ones, others = (np.array(part) for part in zip(*pairs, strict=True))
    accepting = left.accepting[ones] & (right.accepting[others] != without)
    return minimal(np.stack(rows), accepting)
