"""Gaps under a constraint: each held to a language of its own, or all of a text with gaps to one.

A gap of its own is an answer between fixed tokens, whose room may be used up only where its text is complete.

A text as a whole is walked from its first fixed token to its last. A gap that ends before its room is used leaves
places behind that nobody reads, and the text goes on behind them: so the automaton of a whole text has, for each
state of a text, another in which a gap has ended there. Control tokens in the fixed text have no text.

Where gaps have languages of their own besides, marks stand in the text where a gap begins and ends
(:mod:`dllm_plugins.constraints.framing`).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm_plugins.constraints.automaton import DEAD
from dllm_plugins.constraints.framing import MARK
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.row import OpenGap


class GapLimits:
    """Gaps that are held each to a language of its own; others may hold anything.

    :param held: gaps as they stand on the canvas, with what each is held to; its positions count from 0.
    :param size: of the vocabulary.
    """

    def __init__(self, held: Sequence[tuple[OpenGap, Limits]], size: int) -> None:
        self._held = held
        self._every = torch.ones(size, dtype=torch.bool)

    def masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """See :class:`~dllm_plugins.decoding.limits.Limits`."""
        return torch.stack([self._mask(tokens, position) for position in positions])

    #: No mode that fills gaps writes without looking at what stands behind.
    next_masks = masks

    def _mask(self, tokens: Sequence[int], position: int) -> Tensor:
        for gap, reach in self._held:
            if position in gap.positions:
                return reach.masks(inside_of(tokens, gap), [position - gap.start])[0]
        return self._every

    def allows(self, tokens: Sequence[int], position: int, token: int) -> bool:
        """See :class:`~dllm_plugins.decoding.limits.Limits`."""
        return all(
            reach.allows(inside_of(tokens, gap), position - gap.start, token)
            for gap, reach in self._held
            if position in gap.positions
        )

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """See :class:`~dllm_plugins.decoding.limits.Limits`."""
        return all(
            reach.may_end(inside_of(tokens, gap), position - gap.start)
            for gap, reach in self._held
            if gap.start < position <= gap.stop
        )

    def forced(self, tokens: Sequence[int]) -> list[tuple[int, int]]:
        """See :class:`~dllm_plugins.decoding.limits.Limits`; of a gap that has ended early nothing is open."""
        return [
            (gap.start + place, token)
            for gap, reach in self._held
            if len(gap.positions) == gap.room
            for place, token in reach.forced(inside_of(tokens, gap))
        ]


def inside_of(tokens: Sequence[int], gap: OpenGap) -> Sequence[int]:
    """What stands in a gap of a canvas."""
    return tokens[gap.start : gap.stop]


class ResumedAutomaton(TokenAutomaton):
    """The automaton of a text with gaps: the state of a text is kept behind the end of a gap."""

    def _connect(self) -> None:
        #: Whether marks stand around gaps. Tokens that hold such a byte belong to no text.
        self.framed = bool((self.automaton.table[DEAD + 1 :, MARK] != DEAD).any())
        if self.framed:
            marks = {token for token, piece in enumerate(self.vocabulary.pieces) if piece and MARK in piece}
            self.never |= marks - self.stops
        super()._connect()

    def _ending(self) -> NDArray[np.int64]:
        kept = np.arange(self.end, 2 * self.end)
        kept[DEAD] = DEAD
        return kept

    def passed(self, number: int, token: int) -> int:
        """The states that a fixed token leads to, whatever it means elsewhere."""
        members = self._sets[number]
        return self.number(self._of_text(self._through(token)[np.flatnonzero(members[: self.end])]))

    def passed_from(self, number: int, token: int) -> int:
        """The states that a fixed token leads from."""
        members = self._sets[number]
        return self.number(self._of_text(np.flatnonzero(members[self._through(token)])))

    def _through(self, token: int) -> NDArray[np.int64]:
        """Where a fixed token leads from each state of a text, int64 [S]."""
        piece = self.vocabulary.pieces[token]
        if piece is None:
            return np.arange(self.end)
        if self.framed and MARK in piece:
            return np.zeros(self.end, np.int64)
        return self.vocabulary.move(self.automaton.table, token).astype(np.int64)

    def marked(self, number: int, count: int = 1) -> int:
        """The states that so many marks lead to; the same ones where there are no marks."""
        for _ in range(count if self.framed else 0):
            states = np.flatnonzero(self._sets[number][: self.end])
            number = self.number(self._of_text(self.automaton.table[states, MARK].astype(np.int64)))
        return number

    def unmarked(self, number: int, count: int = 1) -> int:
        """The states that so many marks lead from."""
        for _ in range(count if self.framed else 0):
            number = self.number(self._of_text(np.flatnonzero(self._sets[number][self.automaton.table[:, MARK]])))
        return number

    def grown(self, number: int) -> int:
        """The states that any number of tokens lead to, none of which ends a gap."""
        while True:
            after = self._sets[self.after(number, None)].copy()
            after[self.end :] = False
            found = self.number(self._sets[number] | after)
            if found == number:
                return number
            number = found

    def inside(self, state: int, token: int) -> int:
        """The states that a token's text comes through before its last byte, the first one with them."""
        found = [state]
        for byte in (self.vocabulary.pieces[token] or b"")[:-1]:
            found.append(int(self.automaton.table[found[-1], byte]))
        return self.number(self._some(found))

    def _of_text(self, states: NDArray[np.int64]) -> NDArray[np.bool_]:
        found = self._some(states.tolist())
        found[DEAD] = False
        return found

    def resumed(self, number: int, *, bounded: bool) -> int:
        """The states of a text behind a gap, from those that its places lead to; one of a fixed length cannot end."""
        states = np.flatnonzero(self._sets[number][: None if bounded else self.end])
        return self.number(self._of_text(np.where(states < self.end, states, states - self.end)))

    def before_resuming(self, number: int, *, bounded: bool) -> int:
        """The states that a gap's last place must lead to; a gap of a fixed length cannot have ended before."""
        states = np.flatnonzero(self._sets[number][: self.end])
        return self.number(self._some([*states, *(states + self.end if bounded else ())]))


class TextReach(Reach):
    """A text with gaps, all of it held to one language.

    :param gaps: as they stand on the canvas; a program may move them.
    :param begin: the position where the text begins.
    :param tokens: the canvas from position 0, without anything behind the text.
    """

    automaton: ResumedAutomaton

    def __init__(
        self, automaton: ResumedAutomaton, gaps: Sequence[OpenGap], begin: int, tokens: Sequence[int], mask: int
    ) -> None:
        self._gaps = gaps
        self._behind = len(tokens) - gaps[-1].stop
        self._lay_out()
        super().__init__(automaton, begin, len(tokens), mask, whole=True)
        self._begin_anew(self._own(tokens))

    def _lay_out(self) -> None:
        """Notice where the gaps are."""
        self._layout = [gap.positions for gap in self._gaps]
        self.end = self._gaps[-1].stop + self._behind
        self._within = {position: gap for gap in self._gaps for position in gap.positions}
        self._marks = Counter(position for gap in self._gaps for position in (gap.start, gap.stop))

    def _first(self) -> int:
        return self.automaton.marked(super()._first(), self._marks[self.begin])

    def _gap(self, place: int) -> OpenGap | None:
        return self._within.get(self.begin + place)

    def _look(self, tokens: Sequence[int]) -> None:
        if self._layout != [gap.positions for gap in self._gaps]:
            self._lay_out()
            self._begin_anew(self._own(tokens))
        super()._look(tokens)

    def stuck(self) -> int | None:
        """The position behind the first fixed token that no text of the language has, had gaps any length they like.

        None if there is such a text.
        """
        reached = self._first()
        for place, token in enumerate(self._tokens, 1):
            reached = self.automaton.grown(reached) if token is None else self.automaton.passed(reached, token)
            reached = self.automaton.marked(reached, self._marks[self.begin + place])
            if not self.automaton.holds(reached, reached):
                return self.begin + place
        return None if self.automaton.holds(reached, self.automaton.whole) else self.end

    def _on(self, place: int) -> int:
        gap, token = self._gap(place), self._tokens[place]
        if gap is None and token is not None:
            reached = self.automaton.passed(self._forward[place], token)
        else:
            reached = super()._on(place)
            reached = (
                self.automaton.resumed(reached, bounded=gap.bounded) if gap and self._last(gap, place) else reached
            )
        return self.automaton.marked(reached, self._marks[self.begin + place + 1])

    def _needed(self, place: int) -> int:
        gap = self._gap(place)
        behind = self._behind_place(place + 1)
        if gap is None or not self._last(gap, place):
            return behind
        return self.automaton.before_resuming(behind, bounded=gap.bounded)

    def _behind_place(self, place: int) -> int:
        """The states that a place must be reached in, before the marks that stand there."""
        return self.automaton.unmarked(self._backward[place], self._marks[self.begin + place])

    def _back(self, place: int) -> int:
        token = self._tokens[place]
        if self._gap(place) is None and token is not None:
            return self.automaton.passed_from(self._needed(place), token)
        return super()._back(place)

    def _last(self, gap: OpenGap, place: int) -> bool:
        return self.begin + place == gap.stop - 1

    def next_masks(self, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
        """No mode that fills gaps writes without looking at what stands behind."""
        return self.masks(tokens, positions)

    def may_end(self, tokens: Sequence[int], position: int) -> bool:
        """Whether a gap may end before a position, as far as nothing before that is open."""
        self._look(tokens)
        gap = next(gap for gap in self._gaps if gap.start < position <= gap.stop)
        place = position - self.begin
        if position == gap.stop:
            return self.automaton.holds(self._forward[place], self._backward[place])
        behind = self.automaton.before_resuming(self._behind_place(gap.stop - self.begin), bounded=False)
        return self.automaton.holds(self._forward[place], behind)

    def _together(self, place: int) -> range:
        gap = self._gap(place)
        return range(place, place if gap is None else gap.stop - self.begin)

    def _following(self, place: int, reached: int) -> int | None:
        """As elsewhere, but where a gap may as well end, before the token or inside it, the choice is the model's."""
        gap, state = self._gap(place), self.automaton.only(reached)
        if gap is None or state is None or state >= self.automaton.end:
            return None
        token = super()._following(place, reached)
        if token is None or not gap.bounded:
            return token
        passed = (self.automaton.inside(state, token), self._behind_place(gap.stop - self.begin))
        return None if self.automaton.holds(*passed) else token
