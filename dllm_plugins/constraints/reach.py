"""What may still stand on one row's canvas, so that it can be completed into a text of the language.

Forward: the states that each position may be reached in, whatever open positions before it will hold. Backward:
the states from which what stands behind it can be completed within the room that is left. A token may be
written where it leads from one of the former into one of the latter; so the decision is exact, in any order.
Committing a token changes the sets on its right forward and on its left backward, mostly for a few positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.constraints.tokens import TokenAutomaton


class Reach:
    """A row's canvas, seen by the automaton of its language.

    :param begin: the position where the answer begins.
    :param end: the first one that it may not use.
    :param mask: the id of an open position.
    """

    def __init__(self, automaton: TokenAutomaton, begin: int, end: int, mask: int) -> None:
        self.automaton = automaton
        self.begin, self.end, self._mask = begin, end, mask
        room = end - begin
        self._tokens: list[int | None] = [None] * room
        self._forward = [automaton.start] * (room + 1)
        self._backward = [automaton.final] * (room + 1)
        self._moved: set[int] = set()
        self._go_on(0, room)
        self._go_back(room - 1, 0)
        self._free = list(self._backward)

    def _go_on(self, first: int, last: int) -> None:
        """Work out the sets behind `first`, until they are what they were behind `last`."""
        forward, after = self._forward, self.automaton.after
        for place in range(first, len(self._tokens)):
            found = after(forward[place], self._tokens[place])
            if found == forward[place + 1] and place >= last:
                break
            forward[place + 1] = found
            self._moved.add(place + 1)

    def _go_back(self, last: int, first: int) -> None:
        """Work out the sets before `last`, until they are what they were before `first`."""
        backward, before = self._backward, self.automaton.before
        for place in range(last, -1, -1):
            found = before(backward[place + 1], self._tokens[place])
            if found == backward[place] and place <= first:
                break
            backward[place] = found
            self._moved.add(place - 1)

    def _look(self, tokens: Sequence[int]) -> None:
        """Take in what stands on the canvas now, `tokens` from position 0 on."""
        own = [None if token == self._mask else token for token in tokens[self.begin : self.end]]
        own += [None] * (len(self._tokens) - len(own))
        if own == self._tokens:
            return
        changed = [place for place, pair in enumerate(zip(own, self._tokens, strict=True)) if pair[0] != pair[1]]
        self._tokens = own
        self._moved.update(changed)
        self._go_on(changed[0], changed[-1])
        self._go_back(changed[-1], changed[0])

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Which tokens may stand at each position, whatever it holds now; bool [N, V].

        All of them at positions that are no part of the answer.
        """
        self._look(tokens)
        return torch.stack(
            [
                self.automaton.mask(self._forward[position - self.begin], self._backward[position - self.begin + 1])
                if self.begin <= position < self.end
                else self._every()
                for position in positions
            ]
        )

    def next_masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Which tokens may follow what stands on the left of each position, with nothing behind it; bool [N, V].

        One alone where a text has to come (:meth:`TokenAutomaton.written`). All of them behind what no text of the
        language begins with, such as a draft that will be refused.
        """
        found = []
        here, reached = self.begin, self.automaton.start
        for position in positions:
            if not self.begin <= position < self.end:
                found.append(self._every())
                continue
            if position < here:
                here, reached = self.begin, self.automaton.start
            for token in tokens[here:position]:
                reached = self.automaton.after(reached, token)
            here, behind = position, self._free[position - self.begin + 1]
            found.append(self._next_mask(reached, behind))
        return torch.stack(found)

    def _next_mask(self, reached: int, behind: int) -> Tensor:
        token = self._written(reached, behind)
        if token is not None:
            return torch.zeros_like(self._every()).index_fill_(0, torch.tensor([token]), True)
        mask = self.automaton.mask(reached, behind)
        return mask if mask.any() else self._every()

    def _every(self) -> Tensor:
        return torch.ones(self.automaton.vocabulary.size, dtype=torch.bool)

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """Whether a token may stand at a position, whatever it holds now."""
        if not self.begin <= position < self.end:
            return True
        self._look(tokens)
        place = position - self.begin
        return self.automaton.allows(self._forward[place], self._backward[place + 1], token)

    def forced(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """Open positions that can hold one token only, and tokens of a text that has to come next, with them."""
        self._look(tokens)
        found: list[tuple[int, int]] = []
        while True:
            new = self._singles() or self._stretch()
            if not new:
                return found
            found += new
            own = [self._mask if token is None else token for token in self._tokens]
            for position, token in new:
                own[position - self.begin] = token
            self._look([self._mask] * self.begin + own)

    def _singles(self) -> list[tuple[int, int]]:
        """Positions whose choice has changed, and is none."""
        moved, self._moved = self._moved, set()
        found = []
        for place in sorted(moved):
            if 0 <= place < len(self._tokens) and self._tokens[place] is None:
                token = self.automaton.single(self._forward[place], self._backward[place + 1])
                if token is not None:
                    found.append((self.begin + place, token))
        return found

    def _stretch(self) -> list[tuple[int, int]]:
        """The text that follows the first positions, if it has to, as its tokenizer writes it."""
        found: list[tuple[int, int]] = []
        place = next((place for place, token in enumerate(self._tokens) if token is None), len(self._tokens))
        reached = self._forward[place]
        while place < len(self._tokens):
            token = self._written(reached, self._backward[place + 1])
            if token is None or self._tokens[place] not in (None, token):
                break
            if self._tokens[place] is None:
                found.append((self.begin + place, token))
            reached = self.automaton.after(reached, token)
            place += 1
        return found

    def _written(self, reached: int, behind: int) -> int | None:
        """The next token of a text that has to come, unless what stands behind wants other tokens, or has no room."""
        state = self.automaton.only(reached)
        token = None if state is None else self.automaton.written(state)
        return token if token is not None and self.automaton.allows(reached, behind, token) else None
