"""A gap that grows and shrinks while it is filled, held to a language.

Its open positions are holes: one may become a token, be taken out, or become two. So a run of them may become any
number of tokens, as long as all of the gap fits into its room, and a gap can be completed if some texts of its runs
make it one of the language. Forward: the states that a place is reached in, by the number of tokens before it.
Backward: the states from which what stands behind can be completed, by the number of tokens that there is room for.

A hole may be taken out where the rest can be completed without it, and doubled where there is room. At least one
hole can always do something: where no run is longer than its text, and none shorter, each holds its tokens.
A gap that has grown enough takes tokens where it can, gives up holes where it cannot, and grows where it must; so
its filling ends.
"""

from collections.abc import Callable
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.decoding.row import OpenGap

Sets = list[int]


class ElasticReach:
    """One gap; positions count from its beginning.

    :param automaton: of its language; no token ends a text.
    :param gap: as it stands on the canvas now.
    :param mask: the id of a hole.
    :param double: the id that makes a hole two.
    :param remove: the id that takes a hole out; where it stands nothing stands any more.
    """

    def __init__(self, automaton: TokenAutomaton, gap: OpenGap, mask: int, double: int, remove: int) -> None:
        self._automaton = automaton
        self._gap = gap
        self._holes = (mask, double)
        self._double, self._remove = double, remove
        self._nothing = automaton.nothing
        self._seen: tuple[int, ...] | None = None
        self._forward: list[Sets] = []
        self._backward: list[Sets] = []

    def _look(self, tokens: Sequence[int]) -> None:
        """Work out all sets for what stands in the gap now."""
        if self._seen == tuple(tokens):
            return
        self._seen, room = tuple(tokens), self._gap.room
        self._forward = [[self._automaton.start, *[self._nothing] * room]]
        for token in tokens:
            self._forward.append(self._moved(self._forward[-1], token, self._automaton.after))
        self._backward = [[self._automaton.whole] * (room + 1)]
        for token in reversed(tokens):
            self._backward.append(self._moved(self._backward[-1], token, self._automaton.before))
        self._backward.reverse()

    def _moved(self, sets: Sets, token: int, step: Callable[[int, int | None], int]) -> Sets:
        """The sets behind a place or before it, by the automaton's step in that direction."""
        if token == self._remove:
            return sets
        if token not in self._holes:
            return [self._nothing, *(step(one, token) for one in sets[:-1])]
        found = [sets[0]]
        for one in sets[1:]:
            found.append(self._automaton.union(one, step(found[-1], None)))
        return found

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """What may become of each hole, bool [N, V]; nothing, where others have to come first."""
        return torch.stack([self._mask([*tokens], position) for position in positions])

    #: No mode that fills gaps writes without looking at what stands behind.
    next_masks = masks

    def _mask(self, tokens: list[int], position: int) -> Tensor:
        tokens[position] = self._holes[0]
        self._look(tokens)
        room = self._gap.room
        pairs = set(zip(self._forward[position][:room], self._backward[position + 1][-2::-1], strict=True))
        found = torch.zeros(self._automaton.vocabulary.size, dtype=torch.bool)
        for before, behind in pairs:
            if self._nothing not in (before, behind):
                found |= self._automaton.mask(before, behind)
        if self._gap.grows or not found.any():
            spared, free = self._spared(position), sum(token != self._remove for token in tokens) < room
            found[self._remove] = spared
            # A hole that holds no token, and has to stay, is too few: then it has to become two.
            found[self._double] = free and (self._gap.grows or not spared)
        return found

    def _spared(self, position: int) -> bool:
        """Whether the gap can be completed without a hole."""
        sides = zip(self._forward[position], reversed(self._backward[position + 1]), strict=True)
        return any(self._automaton.holds(before, behind) for before, behind in sides)

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """Whether a hole may become a token, or be doubled, or taken out."""
        return bool(self._mask([*tokens], position)[token])

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """Whether the text before a position is complete."""
        self._look(tokens)
        return any(self._automaton.holds(one, self._automaton.whole) for one in self._forward[position])

    def forced(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Nothing: a hole may always become two."""
        return []

    def possible(self, tokens: Sequence[int]) -> bool:
        """Whether the gap can be completed."""
        self._look(tokens)
        return self._automaton.holds(self._forward[0][0], self._backward[0][-1])
