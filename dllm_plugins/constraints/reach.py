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
    :param whole: all of the room is used, and no token ends the text before.
    """

    def __init__(self, automaton: TokenAutomaton, begin: int, end: int, mask: int, *, whole: bool = False) -> None:
        self.automaton = automaton
        self.begin, self.end, self._mask = begin, end, mask
        self._final = automaton.whole if whole else automaton.final
        self._begin_anew([None] * (end - begin))
        self._free = list(self._backward)

    def _begin_anew(self, tokens: list[int | None]) -> None:
        """Work out all sets; `tokens` by place, None where open."""
        room = len(tokens)
        self._tokens = tokens
        self._forward = [self._first()] * (room + 1)
        self._backward = [self._final] * (room + 1)
        self._moved = set(range(room))
        self._go_on(0, room)
        self._go_back(room - 1, 0)

    def _first(self) -> int:
        """The states in which the first place is reached."""
        return self.automaton.start

    def possible(self, tokens: Sequence[int]) -> bool:
        """Whether a canvas can be completed."""
        self._look(tokens)
        return self.automaton.holds(self._forward[0], self._backward[0])

    def _on(self, place: int) -> int:
        """The states behind a place, from those before it."""
        return self.automaton.after(self._forward[place], self._tokens[place])

    def _needed(self, place: int) -> int:
        """The states that a token here must lead into."""
        return self._backward[place + 1]

    def _go_on(self, first: int, last: int) -> None:
        """Work out the sets behind `first`, until they are what they were behind `last`."""
        for place in range(first, len(self._tokens)):
            found = self._on(place)
            if found == self._forward[place + 1] and place >= last:
                break
            self._forward[place + 1] = found
            self._moved.add(place + 1)

    def _go_back(self, last: int, first: int) -> None:
        """Work out the sets before `last`, until they are what they were before `first`."""
        for place in range(last, -1, -1):
            found = self._back(place)
            if found == self._backward[place] and place <= first:
                break
            self._backward[place] = found
            self._moved.add(place - 1)

    def _back(self, place: int) -> int:
        """The states before a place, from those behind it."""
        return self.automaton.before(self._needed(place), self._tokens[place])

    def _look(self, tokens: Sequence[int]) -> None:
        """Take in what stands on the canvas now, `tokens` from position 0 on."""
        own = self._own(tokens)
        if own == self._tokens:
            return
        changed = [place for place, pair in enumerate(zip(own, self._tokens, strict=True)) if pair[0] != pair[1]]
        self._tokens = own
        self._moved.update(changed)
        self._go_on(changed[0], changed[-1])
        self._go_back(changed[-1], changed[0])

    def _own(self, tokens: Sequence[int]) -> list[int | None]:
        """What stands at each place."""
        own = [None if token == self._mask else token for token in tokens[self.begin : self.end]]
        return own + [None] * (self.end - self.begin - len(own))

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Which tokens may stand at each position, whatever it holds now; bool [N, V].

        All of them at positions that are no part of the answer.
        """
        self._look(tokens)
        return torch.stack(
            [
                self.automaton.mask(self._forward[position - self.begin], self._needed(position - self.begin))
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
        return self.automaton.allows(self._forward[place], self._needed(place), token)

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """Whether the text is complete with what stands before a position; nothing there is open."""
        self._look(tokens)
        return self.automaton.holds(self._forward[position - self.begin], self.automaton.whole)

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
                token = self.automaton.single(self._forward[place], self._needed(place))
                if token is not None:
                    found.append((self.begin + place, token))
        return found

    def _stretch(self) -> list[tuple[int, int]]:
        """The text that follows the first positions, if it has to, as its tokenizer writes it."""
        found: list[tuple[int, int]] = []
        first = next((place for place, token in enumerate(self._tokens) if token is None), len(self._tokens))
        reached = self._forward[first]
        for place in self._together(first):
            token = self._following(place, reached)
            if token is None or self._tokens[place] not in (None, token):
                break
            if self._tokens[place] is None:
                found.append((self.begin + place, token))
            reached = self.automaton.after(reached, token)
        return found

    def _together(self, place: int) -> range:
        """Places from this one on that hold one text."""
        return range(place, len(self._tokens))

    def _following(self, place: int, reached: int) -> int | None:
        """The token that has to come at a place, from the states before it."""
        return self._written(reached, self._needed(place))

    def _written(self, reached: int, behind: int) -> int | None:
        """The next token of a text that has to come, unless what stands behind wants other tokens, or has no room."""
        state = self.automaton.only(reached)
        token = None if state is None else self.automaton.written(state)
        return token if token is not None and self.automaton.allows(reached, behind, token) else None
