"""From trees to automata: parts are joined with silent moves, and sets of states become states."""

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import numpy as np

from dllm_plugins.constraints.automaton import DEAD
from dllm_plugins.constraints.automaton import START
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import behind
from dllm_plugins.constraints.automaton import check_size
from dllm_plugins.constraints.automaton import minimal
from dllm_plugins.constraints.automaton import product
from dllm_plugins.constraints.characters import spelled
from dllm_plugins.constraints.expressions import parse
from dllm_plugins.constraints.nodes import Behind
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Multiples
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.numerals import multiples


@lru_cache(maxsize=256)
def build(node: Node) -> Automaton:
    """The smallest automaton of a language.

    :raises OptionError: for a pattern that cannot be read, and for a language that needs too many states.
    """
    match node:
        case Both(left, right):
            return product(build(left), build(right))
        case Without(what, never):
            return product(build(what), build(never), without=True)
        case Pattern(source):
            return build(parse(source))
        case Behind(beginning, what):
            return behind(build(what), beginning)
        case Multiples(of, places):
            return multiples(of, places)
    parts = _Parts()
    begin, end = parts.state(), parts.state()
    parts.add(node, begin, end)
    return parts.determined(begin, end)


class _Parts:
    """States with any number of moves, some of them silent."""

    def __init__(self) -> None:
        self.moves: list[list[tuple[int, int, int]]] = []
        self.silent: list[list[int]] = []
        self._closed: dict[int, frozenset[int]] = {}

    def state(self) -> int:
        """A new one."""
        # Before sets of them are joined there are many more than in the end.
        check_size(len(self.moves) // 10)
        self.moves.append([])
        self.silent.append([])
        return len(self.moves) - 1

    def add(self, node: Node, begin: int, end: int) -> None:
        """Every text of `node` leads from `begin` to `end`."""
        match node:
            case Literal(text):
                self._sequence([(byte, byte) for byte in text], begin, end)
            case Concat(parts):
                self._concat(parts, begin, end)
            case Choice(options):
                for option in options:
                    self.add(option, begin, end)
            case Repeat(what, least, most):
                self._repeat(what, least, most, begin, end)
            case Characters(ranges):
                self._embed(_characters(ranges), begin, end)
            case _:
                self._embed(build(node), begin, end)

    def _sequence(self, ranges: Iterable[tuple[int, int]], begin: int, end: int) -> None:
        here = begin
        for first, last in ranges:
            there = self.state()
            self.moves[here].append((first, last, there))
            here = there
        self.silent[here].append(end)

    def _concat(self, parts: tuple[Node, ...], begin: int, end: int) -> None:
        here = begin
        for part in parts:
            there = self.state()
            self.add(part, here, there)
            here = there
        self.silent[here].append(end)

    def _repeat(self, what: Node, least: int, most: int | None, begin: int, end: int) -> None:
        one, here = build(what), begin
        for _ in range(least):
            there = self.state()
            self._embed(one, here, there)
            here = there
        if most is None:
            again = self.state()
            self.silent[here].append(again)
            self._embed(one, again, again)
            here = again
        for _ in range((most or 0) - least):
            self.silent[here].append(end)
            there = self.state()
            self._embed(one, here, there)
            here = there
        self.silent[here].append(end)

    def _embed(self, automaton: Automaton, begin: int, end: int) -> None:
        if automaton.empty:
            return
        number = [-1, *(self.state() for _ in range(len(automaton.table) - 1))]
        self.silent[begin].append(number[START])
        for state in range(START, len(number)):
            own = [(first, last, number[target]) for first, last, target in automaton.ranges[state]]
            self.moves[number[state]] = own
            if automaton.accepting[state]:
                self.silent[number[state]].append(end)

    def _closure(self, state: int) -> frozenset[int]:
        """It and what silent moves lead to."""
        found = self._closed.get(state)
        if found is None:
            seen, waiting = {state}, [state]
            while waiting:
                new = [target for target in self.silent[waiting.pop()] if target not in seen]
                seen.update(new)
                waiting += new
            # States that only pass on would tell sets apart for nothing.
            found = frozenset(one for one in seen if self.moves[one] or not self.silent[one])
            self._closed[state] = found
        return found

    def determined(self, begin: int, end: int) -> Automaton:
        """The automaton whose states are the sets of states that a text may lead to."""
        sets = [frozenset[int](), self._closure(begin)]
        number = {members: place for place, members in enumerate(sets)}
        rows = [np.zeros(256, np.int32)]
        while len(rows) < len(sets):
            check_size(len(sets))
            row = np.full(256, DEAD, np.int32)
            for first, last, targets in _apart([move for member in sets[len(rows)] for move in self.moves[member]]):
                members = frozenset().union(*(self._closure(target) for target in targets))
                if members not in number:
                    number[members] = len(sets)
                    sets.append(members)
                row[first : last + 1] = number[members]
            rows.append(row)
        return minimal(np.stack(rows), np.array([end in members for members in sets]))


def _apart(moves: list[tuple[int, int, int]]) -> Iterable[tuple[int, int, frozenset[int]]]:
    """Ranges that do not overlap, each with all its targets."""
    cuts = sorted({first for first, _, _ in moves} | {last + 1 for _, last, _ in moves})
    for first, after in pairwise(cuts):
        targets = frozenset(target for low, high, target in moves if low <= first and after - 1 <= high)
        if targets:
            yield first, after - 1, targets


@lru_cache(maxsize=256)
def _characters(ranges: tuple[tuple[int, int], ...]) -> Automaton:
    parts = _Parts()
    begin, end = parts.state(), parts.state()
    for sequence in spelled(ranges):
        parts._sequence(sequence, begin, end)
    return parts.determined(begin, end)
