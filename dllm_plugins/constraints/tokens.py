"""A language as an automaton over tokens, and what may stand where, from both ends of a text.

Its states are those of the automaton over bytes, and one more: the end, which a stop token leads to from
wherever a text may end, and which every further token leaves as it is, because nobody reads on.
Sets of states are known by numbers: what follows from a set is worked out once and then looked up.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from functools import cached_property
from itertools import repeat
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm_plugins.constraints.automaton import DEAD
from dllm_plugins.constraints.automaton import START
from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.framing import MARK
from dllm_plugins.constraints.vocabulary import Vocabulary

Set = NDArray[np.bool_]
#: What is remembered of each kind; then it is forgotten.
_MOST = 4096
_MOST_MASKS = 512
_OPEN = -1
#: Bytes of a text that has to come.
_LONGEST = 4096


class TokenAutomaton:
    """Which tokens lead where.

    :param stops: ids that end an answer.
    :param encode: a text as its tokenizer writes it.
    :param never: ids that stand nowhere.
    """

    def __init__(
        self,
        automaton: Automaton,
        vocabulary: Vocabulary,
        stops: Iterable[int],
        encode: Callable[[str], Sequence[int]],
        never: Iterable[int] = (),
    ) -> None:
        self.automaton = automaton
        self.vocabulary = vocabulary
        self.stops = frozenset(stops)
        self.never = frozenset(never)
        self._encode = encode
        #: The first state that is none of a text, but of what has ended; and where a stop token leads from each state.
        self.end = len(automaton.table)
        self._ended = self._ending()
        self.count = max(self.end, int(self._ended.max(initial=DEAD))) + 1
        self._lock = Lock()
        self._number: dict[bytes, int] = {}
        self._sets: list[Set] = []
        self._moves: dict[int, NDArray[np.int64]] = {}
        self._after: dict[tuple[int, int], int] = {}
        self._before: dict[tuple[int, int], int] = {}
        self._unions: dict[tuple[int, int], int] = {}
        self._masks: dict[tuple[int, int], Tensor] = {}
        self._singles: dict[tuple[int, int], int | None] = {}
        self._written: dict[int, int | None] = {}
        self._connect()

    def _ending(self) -> NDArray[np.int64]:
        """Where a stop token leads from each state of a text, int64 [S]; DEAD where a text may not end."""
        return np.where(self.automaton.accepting, self.end, DEAD)

    def _connect(self) -> None:
        """Edges (from, to, which tokens): tokens that lead from one state to the same other one lie together."""
        known: dict[bytes, int] = {}
        self._lists: list[NDArray[np.int32]] = []
        never, stops = (np.array(sorted(ids), np.int32) for ids in (self.never, self.stops - self.never))
        others = np.union1d(stops, never)
        edges = []
        for state, target, own in self.vocabulary.edges(self.automaton.table):
            # A token that ends the answer does so even if it has a text.
            left = own[~np.isin(own, others)]
            if len(left):
                edges.append((state, target, self._label(known, left)))
        ends = np.flatnonzero(self._ended != DEAD) if len(stops) else np.empty(0, np.int64)
        stop = self._label(known, stops)
        edges += zip(ends.tolist(), self._ended[ends].tolist(), repeat(stop))
        every = self._label(known, np.setdiff1d(np.arange(self.vocabulary.size, dtype=np.int32), never))
        edges += ((state, state, every) for state in range(self.end, self.count))
        self._source, self._target, self._which = np.array(edges, np.int64).T

    def _label(self, known: dict[bytes, int], tokens: NDArray[np.int32]) -> int:
        key = tokens.tobytes()
        if key not in known:
            known[key] = len(self._lists)
            self._lists.append(tokens)
        return known[key]

    def number(self, members: Set) -> int:
        """The number of a set of states, bool [:attr:`count`]."""
        key = members.tobytes()
        # Engines of one tokenizer may run in several threads. What else is remembered is the same whoever writes it.
        with self._lock:
            found = self._number.get(key)
            if found is None:
                found = self._number[key] = len(self._sets)
                self._sets.append(members)
        return found

    @property
    def remembered(self) -> int:
        """Bytes of the sets met so far, which nothing forgets as long as it is used."""
        return 2 * len(self._sets) * self.count

    @cached_property
    def start(self) -> int:
        """The set that holds the first state alone."""
        return self.number(self._some([] if self.automaton.empty else [START]))

    @cached_property
    def final(self) -> int:
        """The set of states in which the room may be used up."""
        return self.number(np.append(self.automaton.accepting, True))

    @cached_property
    def whole(self) -> int:
        """The set of states in which a text is complete that no token has ended."""
        return self.number(self._some(np.flatnonzero(self.automaton.accepting).tolist()))

    @cached_property
    def distance(self) -> NDArray[np.int64]:
        """How many tokens a state needs at least until a text may end, int64 [:attr:`count`]; -1 if it never may."""
        found = np.where(self._sets[self.final], 0, -1)
        steps, reached = 0, self.final
        while True:
            steps += 1
            reached = self.before(reached)
            new = self._sets[reached] & (found < 0)
            if not new.any():
                return found
            found[new] = steps

    @property
    def shortest(self) -> int:
        """How many tokens the shortest text has; -1 if there is none."""
        return -1 if self.automaton.empty else int(self.distance[START])

    def _some(self, states: Iterable[int]) -> Set:
        members = np.zeros(self.count, np.bool_)
        members[list(states)] = True
        return members

    @cached_property
    def nothing(self) -> int:
        """The empty set."""
        return self.number(self._some(()))

    def union(self, number: int, other: int) -> int:
        """The set of the states of two sets."""
        if other in (number, self.nothing):
            return number
        key = number, other
        if key not in self._unions:
            self._unions[key] = self.number(self._sets[number] | self._sets[other])
        return self._unions[key]

    def holds(self, number: int, other: int) -> bool:
        """Whether two sets have a state in common."""
        return bool((self._sets[number] & self._sets[other]).any())

    def only(self, number: int) -> int | None:
        """The state of a set that holds one alone."""
        states = np.flatnonzero(self._sets[number])
        return int(states[0]) if len(states) == 1 else None

    def move(self, token: int) -> NDArray[np.int64]:
        """Where a token leads from every state, int64 [:attr:`count`]."""
        found = self._moves.get(token)
        if found is None:
            if len(self._moves) >= _MOST:
                self._moves.clear()
            found = self._moves[token] = self._worked_out(token)
        return found

    def _worked_out(self, token: int) -> NDArray[np.int64]:
        if token in self.never:
            return np.zeros(self.count, np.int64)
        inside = self._ended if token in self.stops else self.vocabulary.move(self.automaton.table, token)
        return np.append(inside, np.arange(self.end, self.count)).astype(np.int64)

    def after(self, number: int, token: int | None) -> int:
        """The states that a token leads to from a set of states; None: any token."""
        key = number, _OPEN if token is None else token
        found = self._after.get(key)
        if found is None:
            members = self._sets[number]
            leads = self._target[members[self._source]] if token is None else self.move(token)[members]
            reached = self._some(leads)
            reached[DEAD] = False
            found = self._after[key] = self.number(reached)
        return found

    def before(self, number: int, token: int | None = None) -> int:
        """The states that a token leads from into a set of states; None: any token."""
        key = number, _OPEN if token is None else token
        found = self._before.get(key)
        if found is None:
            members = self._sets[number]
            leads = self._source[members[self._target]] if token is None else np.flatnonzero(members[self.move(token)])
            sources = self._some(leads)
            sources[DEAD] = False
            found = self._before[key] = self.number(sources)
        return found

    def mask(self, before: int, behind: int) -> Tensor:
        """Which tokens lead from one set of states into another, bool [V]."""
        found = self._masks.get((before, behind))
        if found is None:
            if len(self._masks) >= _MOST_MASKS:
                self._masks.clear()
            allowed = np.zeros(self.vocabulary.size, np.bool_)
            for own in self._between(before, behind):
                allowed[own] = True
            found = self._masks[before, behind] = torch.from_numpy(allowed)
        return found

    def _between(self, before: int, behind: int) -> list[NDArray[np.int32]]:
        edges = self._sets[before][self._source] & self._sets[behind][self._target]
        return [self._lists[label] for label in np.unique(self._which[edges])]

    def single(self, before: int, behind: int) -> int | None:
        """The token that leads from one set of states into another, if there is only one."""
        key = before, behind
        if key not in self._singles:
            lists = self._between(before, behind)
            one = len(lists) > 0 and all(len(own) == 1 and own[0] == lists[0][0] for own in lists)
            self._singles[key] = int(lists[0][0]) if one else None
        return self._singles[key]

    def written(self, state: int) -> int | None:
        """The next token of a text that has to follow a state, as the tokenizer writes it.

        None where there is a choice of text, and where another token would spell more than what has to come, and the
        text could go on so. It depends on the state alone, so that every mode writes the same tokens.
        """
        if state not in self._written:
            self._written[state] = self._next_written(state)
        return self._written[state]

    def _next_written(self, state: int) -> int | None:
        text, here = bytearray(), state
        while here != self.end and not self.automaton.accepting[here] and len(text) < _LONGEST:
            ways = self.automaton.ranges[here]
            if len(ways) != 1 or ways[0][0] != ways[0][1] or ways[0][0] == MARK:
                break
            text.append(ways[0][0])
            here = ways[0][2]
        whole = text.decode(errors="ignore")
        tokens = tuple(self._encode(whole)) if whole else ()
        pieces = [self.vocabulary.pieces[token] if token < self.vocabulary.size else None for token in tokens]
        if None in pieces or b"".join(piece or b"" for piece in pieces) != whole.encode():
            # A tokenizer that writes a space in front, or reads the name of a control token.
            return None
        first = pieces[0] if pieces else None
        return None if first is None or (len(tokens) == 1 and self._goes_on(state, first)) else tokens[0]

    def _goes_on(self, state: int, piece: bytes) -> bool:
        """Whether a token that begins with these bytes and has more may follow a state."""
        pieces = self.vocabulary.pieces
        follow = (pieces[token] for which in self._which[self._source == state] for token in self._lists[which])
        return any(found is not None and len(found) > len(piece) and found.startswith(piece) for found in follow)

    def allows(self, before: int, behind: int, token: int) -> bool:
        """Whether a token leads from one set of states into another."""
        return self.holds(self.after(before, token), behind)
