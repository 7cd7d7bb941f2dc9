"""Grammars whose rules may name one another, as automata: exact where that is regular, nested so deep where it is not.

A rule that names itself at its own beginning or end only repeats something, and a circle of an automaton does that.
Whatever else leads back to a rule, such as an expression in brackets, nests; an automaton counts no brackets without a
bound, so texts are nested as deep as there is room for states. Each of them is a sentence of the grammar, and what may
stand where is decided exactly among them (the regular subsets of Nederhof, 2000, Practical experiments with regular
approximation of context-free languages, with a depth in place of a superset).
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import product
from dllm_plugins.constraints.nodes import Behind
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import GrammarTree
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Ref
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.errors import OptionError

#: How deep texts are nested at most, and the states beyond which they are not nested deeper.
DEEPEST = 12
_ROOM = 2_000
_NOTHING = Automaton(np.zeros((1, 256), np.int32), np.zeros(1, np.bool_))


class Build(Protocol):
    """Builds a tree of automata of its parts; see :func:`~dllm_plugins.constraints.building.built_of`."""

    def __call__(self, node: Node, build_part: Callable[[Node], Automaton], rule: str | None = None) -> Automaton:
        """The automaton of a tree."""


def names_in(node: Node) -> frozenset[str]:
    """The rules that a tree names.

    :raises OptionError: where what a text must not be names one: a bound on its depth would allow too much.
    """
    match node:
        case Ref(name):
            return frozenset([name])
        case Concat(parts) | Choice(parts):
            return frozenset().union(*map(names_in, parts))
        case Repeat(what) | Behind(_, what):
            return names_in(what)
        case Both(left, right):
            return names_in(left) | names_in(right)
        case Without(what, never):
            if names_in(never):
                raise OptionError(f"what a text must not be names the rule {min(names_in(never))!r}; write it out")
            return names_in(what)
    return frozenset()


class Grammars:
    """The automata of one grammar's rules.

    :raises OptionError: for a rule that is named, but not there.
    """

    def __init__(self, grammar: GrammarTree, build: Build) -> None:
        self._grammar, self._build = grammar, build
        self._rules = dict(grammar.rules)
        named = {name: names_in(node) for name, node in self._rules.items()}
        missing = frozenset().union(names_in(grammar.start), *named.values()) - named.keys()
        if missing:
            raise OptionError(f"the grammar names {min(missing)!r}, for which it has no rule; add one")
        self._leads = {name: _closure(name, named) for name in named}
        self._built: dict[tuple[Node, int, frozenset[str]], Automaton] = {}

    def automaton(self) -> Automaton:
        """Nested as deep as there is room for, or as it matters.

        :raises OptionError: if even the flattest texts need too many states.
        """
        found = self._part(self._grammar.start, 1, frozenset())
        for depth in range(2, DEEPEST + 1):
            try:
                deeper = self._part(self._grammar.start, depth, frozenset())
            except OptionError:
                return found
            if _same(deeper, found):
                return found
            growth, found = len(deeper.table) / len(found.table), deeper
            # The next one is not even begun where it would be too large, once there are complete texts.
            if growth * len(deeper.table) > _ROOM and not deeper.empty:
                return deeper
        return found

    def _part(self, node: Node, depth: int, under: frozenset[str]) -> Automaton:
        """A part of the rules `under` work, nested `depth` times at most."""
        if isinstance(node, Ref):
            return self._rule(node.name, depth, under)
        names = names_in(node)
        key = (node, depth, under) if names else (node, 0, frozenset[str]())
        if key not in self._built:
            self._built[key] = self._build(node, partial(self._part, depth=depth, under=under))
        return self._built[key]

    def _rule(self, name: str, depth: int, under: frozenset[str]) -> Automaton:
        if name in under:
            depth, under = depth - 1, frozenset()
        if not depth:
            return _NOTHING
        # Rules that do not lead back here are the same whatever they stand in.
        under = frozenset(other for other in under if other in self._leads[name]) | {name}
        key = Ref(name), depth, under
        if key not in self._built:
            part = partial(self._part, depth=depth, under=under)
            self._built[key] = self._build(self._rules[name], part, name)
        return self._built[key]


def _closure(name: str, named: dict[str, frozenset[str]]) -> frozenset[str]:
    """The rules that a rule leads to."""
    found, waiting = set[str](), [name]
    while waiting:
        new = named[waiting.pop()] - found
        found |= new
        waiting += new
    return frozenset(found)


def _same(larger: Automaton, smaller: Automaton) -> bool:
    return len(larger.table) == len(smaller.table) and product(larger, smaller, without=True).empty
