"""A tokenizer's vocabulary as a tree of bytes, walked with many states of an automaton at once."""

from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dllm_plugins.constraints.automaton import DEAD

Ints = NDArray[np.int32]
#: States walked together: a state inside a JSON string goes through the whole tree.
_TOGETHER = 32


class Vocabulary:
    """The texts of all tokens.

    :param pieces: the bytes of each id; None for control tokens, which have no text.
    """

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self.pieces = tuple(piece or None for piece in pieces)
        self.size = len(self.pieces)
        self._grow()

    def _grow(self) -> None:
        """The tree, level by level: the children of a node lie together, and so do the tokens that end in it."""
        spelled = sorted((piece, token) for token, piece in enumerate(self.pieces) if piece is not None)
        nodes = [(0, len(spelled), 0)]
        firsts, counts, letters = [], [], []
        ends: list[tuple[int, int]] = []
        for begin, end, depth in nodes:
            stop = begin
            while stop < end and len(spelled[stop][0]) == depth:
                stop += 1
            ends.append((begin, stop))
            firsts.append(len(nodes))
            while stop < end:
                letter, first = spelled[stop][0][depth], stop
                while stop < end and spelled[stop][0][depth] == letter:
                    stop += 1
                nodes.append((first, stop, depth + 1))
                letters.append(letter)
            counts.append(len(nodes) - firsts[-1])
        self._first, self._count = np.array(firsts, np.int32), np.array(counts, np.int32)
        self._letter = np.array([0, *letters], np.uint8)
        self._token = np.array([token for _, token in spelled], np.int32)
        self._ends = np.array(ends, np.int32).reshape(-1, 2)

    def edges(self, table: NDArray[np.int32]) -> Iterator[tuple[int, int, Ints]]:
        """Which tokens lead from a state to another that is not dead: state, next state, tokens.

        :param table: next states by byte, int32 [S, 256].
        """
        for first in range(DEAD + 1, len(table), _TOGETHER):
            states, tokens, targets = self._walk(
                np.arange(first, min(first + _TOGETHER, len(table)), dtype=np.int32), table
            )
            pairs = states.astype(np.int64) * len(table) + targets
            # Stable, so that the same tokens come in the same order whatever state they leave.
            order = np.argsort(pairs, kind="stable")
            pairs, tokens = pairs[order], tokens[order]
            starts = np.flatnonzero(np.diff(pairs, prepend=-1))
            for pair, own in zip(pairs[starts].tolist(), np.split(tokens, starts[1:]), strict=bool(len(starts))):
                yield *divmod(pair, len(table)), own

    def _walk(self, origins: Ints, table: NDArray[np.int32]) -> tuple[Ints, Ints, Ints]:
        nodes, states = np.zeros(len(origins), np.int32), origins
        found: list[tuple[Ints, Ints, Ints]] = []
        while len(nodes):
            which, children = _expanded(self._first[nodes], self._count[nodes])
            states = table[states[which], self._letter[children]]
            alive = states != DEAD
            origins, nodes, states = origins[which][alive], children[alive], states[alive]
            begins = self._ends[nodes, 0]
            which, places = _expanded(begins, self._ends[nodes, 1] - begins)
            found.append((origins[which], self._token[places], states[which]))
        origins, tokens, targets = (np.concatenate(part) for part in zip(*found, strict=True))
        return origins, tokens, targets

    def move(self, table: NDArray[np.int32], token: int) -> NDArray[np.int32]:
        """Where a token leads from every state, int32 [S]; a control token is a dead end."""
        piece = self.pieces[token] if 0 <= token < self.size else None
        if piece is None:
            return np.zeros(len(table), np.int32)
        states = np.arange(len(table), dtype=np.int32)
        for byte in piece:
            states = table[states, byte]
        return states


def _expanded(firsts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """For each stretch, its index as often as it is long, and the places it holds."""
    which = np.repeat(np.arange(len(firsts), dtype=np.int32), counts)
    begins = firsts - (np.cumsum(counts, dtype=np.int32) - counts)
    return which, np.arange(len(which), dtype=np.int32) + begins[which]
