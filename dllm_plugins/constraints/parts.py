"""States with any number of moves, some of them silent, which become an automaton: sets of states become states."""

from collections.abc import Callable
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import numpy as np

from dllm_plugins.constraints.automaton import DEAD
from dllm_plugins.constraints.automaton import START
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import check_size
from dllm_plugins.constraints.automaton import minimal
from dllm_plugins.constraints.characters import spelled
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Ref
from dllm_plugins.constraints.nodes import Repeat


class Parts:
    """They, of one language.

    :param build: the automaton of a part that is made apart.
    :param rule: the rule of a grammar whose right side this is. A reference to it at its own beginning or end goes
        round in a circle, which is regular; elsewhere it is a part like any other.
    """

    def __init__(self, build: Callable[[Node], Automaton], rule: str | None = None) -> None:
        self._build = build
        self._rule = rule
        self._moves: list[list[tuple[int, int, int]]] = []
        self._silent: list[list[int]] = []
        self._closed: dict[int, frozenset[int]] = {}

    def _state(self) -> int:
        """A new one."""
        # Before sets of them are joined there are many more than in the end.
        check_size(len(self._moves) // 10)
        self._moves.append([])
        self._silent.append([])
        return len(self._moves) - 1

    def automaton(self, node: Node) -> Automaton:
        """That of a whole language."""
        self._begin, self._end = self._state(), self._state()
        self._add(node, self._begin, self._end, first=True, last=True)
        return self._determined()

    def _add(self, node: Node, begin: int, end: int, *, first: bool = False, last: bool = False) -> None:
        """Every text of `node` leads from `begin` to `end`.

        :param first: nothing of the whole language stands before it; `last` behind it.
        """
        match node:
            case Literal(text):
                self.sequence([(byte, byte) for byte in text], begin, end)
            case Concat(parts):
                self._concat(parts, begin, end, first=first, last=last)
            case Choice(options):
                for option in options:
                    self._add(option, begin, end, first=first, last=last)
            case Repeat(what, least, most):
                self._repeat(what, least, most, begin, end)
            case Characters(ranges):
                self._embed(_characters(ranges), begin, end)
            case Ref(name) if name == self._rule and last:
                self._silent[begin].append(self._begin)
            case Ref(name) if name == self._rule and first:
                self._silent[self._end].append(end)
            case _:
                self._embed(self._build(node), begin, end)

    def sequence(self, ranges: Iterable[tuple[int, int]], begin: int, end: int) -> None:
        """One byte of each range after another leads from `begin` to `end`."""
        here = begin
        for first, last in ranges:
            there = self._state()
            self._moves[here].append((first, last, there))
            here = there
        self._silent[here].append(end)

    def alternatives(self, sequences: Iterable[Iterable[tuple[int, int]]]) -> Automaton:
        """That of texts which fit one of these sequences of byte ranges."""
        self._begin, self._end = self._state(), self._state()
        for sequence in sequences:
            self.sequence(sequence, self._begin, self._end)
        return self._determined()

    def _concat(self, parts: tuple[Node, ...], begin: int, end: int, *, first: bool, last: bool) -> None:
        here = begin
        for place, part in enumerate(parts):
            there = self._state() if place + 1 < len(parts) else end
            self._add(part, here, there, first=first and not place, last=last and there == end)
            here = there
        if not parts:
            self._silent[begin].append(end)

    def _repeat(self, what: Node, least: int, most: int | None, begin: int, end: int) -> None:
        one, here = self._build(what), begin
        for _ in range(least):
            there = self._state()
            self._embed(one, here, there)
            here = there
        if most is None:
            again = self._state()
            self._silent[here].append(again)
            self._embed(one, again, again)
            here = again
        for _ in range((most or 0) - least):
            self._silent[here].append(end)
            there = self._state()
            self._embed(one, here, there)
            here = there
        self._silent[here].append(end)

    def _embed(self, automaton: Automaton, begin: int, end: int) -> None:
        if automaton.empty:
            return
        number = [-1, *(self._state() for _ in range(len(automaton.table) - 1))]
        self._silent[begin].append(number[START])
        for state in range(START, len(number)):
            own = [(first, last, number[target]) for first, last, target in automaton.ranges[state]]
            self._moves[number[state]] = own
            if automaton.accepting[state]:
                self._silent[number[state]].append(end)

    def _closure(self, state: int) -> frozenset[int]:
        """It and what silent moves lead to."""
        found = self._closed.get(state)
        if found is None:
            seen, waiting = {state}, [state]
            while waiting:
                new = [target for target in self._silent[waiting.pop()] if target not in seen]
                seen.update(new)
                waiting += new
            # States that only pass on would tell sets apart for nothing.
            found = frozenset(one for one in seen if self._moves[one] or one == self._end)
            self._closed[state] = found
        return found

    def _determined(self) -> Automaton:
        """Its states are the sets of states that a text may lead to."""
        sets = [frozenset[int](), self._closure(self._begin)]
        number = {members: place for place, members in enumerate(sets)}
        rows = [np.zeros(256, np.int32)]
        while len(rows) < len(sets):
            check_size(len(sets))
            row = np.full(256, DEAD, np.int32)
            for first, last, targets in _apart([move for member in sets[len(rows)] for move in self._moves[member]]):
                members = frozenset().union(*(self._closure(target) for target in targets))
                if members not in number:
                    number[members] = len(sets)
                    sets.append(members)
                row[first : last + 1] = number[members]
            rows.append(row)
        return minimal(np.stack(rows), np.array([self._end in members for members in sets]))


def _apart(moves: list[tuple[int, int, int]]) -> Iterable[tuple[int, int, frozenset[int]]]:
    """Ranges that do not overlap, each with all its targets."""
    cuts = sorted({first for first, _, _ in moves} | {last + 1 for _, last, _ in moves})
    for first, after in pairwise(cuts):
        targets = frozenset(target for low, high, target in moves if low <= first and after - 1 <= high)
        if targets:
            yield first, after - 1, targets


@lru_cache(maxsize=256)
def _characters(ranges: tuple[tuple[int, int], ...]) -> Automaton:
    return Parts(_nothing_apart).alternatives(spelled(ranges))


def _nothing_apart(node: Node) -> Automaton:
    raise AssertionError(f"{node} is no sequence of bytes")
