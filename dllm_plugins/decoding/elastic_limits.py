"""A gap that grows and shrinks while it is filled, held to a language.

Its open positions are holes: one may become a token, be taken out, or become two. So a run of them may become any
number of tokens, as long as all of the gap fits into its room, and a gap can be completed if some texts of its runs
make it one of the language. Forward: the states that a place is reached in, by the number of tokens before it.
Backward: the states from which what stands behind can be completed, by the number of tokens that there is room for.

A hole may be taken out where the rest can be completed without it, and doubled where there is room. At least one
hole can always do something: where no run is longer than its text, and none shorter, each holds its tokens.
A gap that has grown enough takes tokens where it can, gives up holes where it cannot, and grows where it must; so
its filling ends.

Where all of a text is held to one language, a gap begins in the states that what stands before it leads to, however
long the gaps before it become, and has to end in those from which what stands behind it can be completed.
"""

from collections.abc import Callable
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.decoding.gap_limits import GapLimits
from dllm_plugins.decoding.gap_limits import ResumedAutomaton
from dllm_plugins.decoding.gap_limits import inside_of
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
        self._mask_id = mask
        # A gap of a fixed length has open positions, each of which is one token.
        self._holes = (mask, double) if gap.bounded else ()
        self._double, self._remove = double, remove
        self._nothing = automaton.nothing
        #: The states in which it begins, and those in which it has to end.
        self.begin, self.final = automaton.start, automaton.whole
        self._seen: dict[bool, tuple[int, tuple[int, ...]]] = {}
        self._forward: list[Sets] = []
        self._backward: list[Sets] = []

    def _look(self, tokens: Sequence[int]) -> None:
        """Work out all sets for what stands in the gap now."""
        self.reached(tokens)
        self.needed(tokens)

    def reached(self, tokens: Sequence[int]) -> int:
        """The states that the gap leads to, however long it becomes."""
        seen = self.begin, tuple(tokens)
        if self._seen.get(True) != seen:
            self._seen[True] = seen
            self._forward = [[self.begin, *[self._nothing] * self._gap.room]]
            for token in tokens:
                self._forward.append(self._moved(self._forward[-1], token, self._automaton.after))
        return reduce(self._automaton.union, self._forward[-1])

    def needed(self, tokens: Sequence[int]) -> int:
        """The states from which the gap leads to where it has to end."""
        seen = self.final, tuple(tokens)
        if self._seen.get(False) != seen:
            self._seen[False] = seen
            self._backward = [[self.final] * (self._gap.room + 1)]
            for token in reversed(tokens):
                self._backward.append(self._moved(self._backward[-1], token, self._automaton.before))
            self._backward.reverse()
        return self._backward[0][-1]

    def _moved(self, sets: Sets, token: int, step: Callable[[int, int | None], int]) -> Sets:
        """The sets behind a place or before it, by the automaton's step in that direction."""
        if token == self._remove:
            return sets
        if token not in self._holes:
            known = None if token == self._mask_id else token
            return [self._nothing, *(step(one, known) for one in sets[:-1])]
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
        tokens[position] = self._mask_id
        self._look(tokens)
        room = self._gap.room
        pairs = set(zip(self._forward[position][:room], self._backward[position + 1][-2::-1], strict=True))
        found = torch.zeros(self._automaton.vocabulary.size, dtype=torch.bool)
        for before, behind in pairs:
            if self._nothing not in (before, behind):
                found |= self._automaton.mask(before, behind)
        if self._gap.bounded and (self._gap.grows or not found.any()):
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
        return any(self._automaton.holds(one, self.final) for one in self._forward[position])

    def forced(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Nothing: a hole may always become two."""
        return []

    def possible(self, tokens: Sequence[int]) -> bool:
        """Whether the gap can be completed."""
        return self._automaton.holds(self.begin, self.needed(tokens))


class ElasticText(GapLimits):
    """A text with gaps that grow and shrink, all of it held to one language.

    :param gaps: as they stand on the canvas.
    :param begin: the position where the text begins.
    :param tokens: the canvas from position 0.
    :param double, remove: see :class:`ElasticReach`.
    """

    def __init__(
        self,
        automaton: ResumedAutomaton,
        gaps: Sequence[OpenGap],
        begin: int,
        tokens: Sequence[int],
        mask: int,
        double: int,
        remove: int,
    ) -> None:
        self._automaton = automaton
        self._reaches = [ElasticReach(automaton, gap, mask, double, remove) for gap in gaps]
        super().__init__(list(zip(gaps, self._reaches, strict=True)), automaton.vocabulary.size)
        starts = [*(gap.start for gap in gaps[1:]), len(tokens)]
        self._before = tokens[begin : gaps[0].start]
        self._behind = [tokens[gap.stop : start] for gap, start in zip(gaps, starts, strict=True)]

    def _look(self, tokens: Sequence[int]) -> list[Sequence[int]]:
        """Tell every gap where it begins and has to end; what stands in each."""
        automaton, inside = self._automaton, [inside_of(tokens, gap) for gap, _ in self._held]
        reached = reduce(automaton.passed, self._before, automaton.start)
        for reach, own, behind in zip(self._reaches, inside, self._behind, strict=True):
            reach.begin = automaton.marked(reached)
            reached = reduce(automaton.passed, behind, automaton.marked(reach.reached(own)))
        needed = automaton.whole
        for reach, own, behind in reversed(list(zip(self._reaches, inside, self._behind, strict=True))):
            reach.final = automaton.unmarked(reduce(automaton.passed_from, reversed(behind), needed))
            needed = automaton.unmarked(reach.needed(own))
        return inside

    def possible(self, tokens: Sequence[int]) -> bool:
        """Whether the text can be completed."""
        inside = self._look(tokens)
        return self._reaches[0].possible(inside[0])

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """What may become of each hole, bool [N, V]; nothing, where others have to come first."""
        self._look(tokens)
        return super().masks(tokens, positions)

    #: No mode that fills gaps writes without looking at what stands behind.
    next_masks = masks

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """Whether a hole may become a token, or be doubled, or taken out."""
        self._look(tokens)
        return super().allows(tokens, position, token)

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """Whether what stands behind a gap may follow what stands before a position in it."""
        self._look(tokens)
        return super().may_end(tokens, position)
