"""Prefixes that outlive their rows, so that the next turn of a conversation forwards only what is new.

As in automatic prefix caching of serving engines (vLLM, arXiv 2309.06180), but by whole
rows: a finished row leaves its prefix here, and a prompt that begins with the same
tokens starts from a copy of it. Exact caches only hold clean tokens, which see nothing
to their right, so any first part of a prefix is a prefix too.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ReferenceType
from weakref import ref

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.errors import RequestError


@dataclass(frozen=True, slots=True)
class KeptPrefix:
    """A prefix: the tokens it was made from, and their keys and values."""

    tokens: tuple[int, ...]
    state: PrefixState


class KeptPrefixes:
    """The most recently used prefixes of one denoiser, at most `positions` positions in all.

    :param blocks: serve modes in whose prefixes the tokens of a block see one another, too: whole blocks of a prefix.
    """

    def __init__(self, positions: int, *, blocks: bool = False) -> None:
        self.positions = positions
        self.blocks = blocks
        self._kept: list[KeptPrefix] = []
        self._owner: ReferenceType[Denoiser] | None = None

    def bind(self, denoiser: Denoiser) -> None:
        """Serve this denoiser, and no other from now on.

        :raises RequestError: if the prefixes were made by another one.
        """
        if self._owner is None:
            self._owner = ref(denoiser)
        elif self._owner() is not denoiser:
            raise RequestError(
                "the prefix cache was filled by another model, or before its weights changed; start with a new one"
            )

    def __reduce__(self) -> tuple[Any, tuple[int]]:
        """Copies and pickles are empty: keys and values belong to the denoiser that made them."""
        return partial(KeptPrefixes, blocks=self.blocks), (self.positions,)

    def __len__(self) -> int:
        """How many prefixes are held."""
        return len(self._kept)

    @property
    def held(self) -> int:
        """How many positions are held."""
        return _positions(self._kept)

    @property
    def longest(self) -> int:
        """Positions of the longest prefix held; 0 if there is none."""
        return max((len(kept.tokens) for kept in self._kept), default=0)

    def find(self, tokens: Sequence[int], unit: int = 1) -> tuple[PrefixState | None, int]:
        """The prefix that shares most tokens with a prompt, and how many of them can be used, a multiple of `unit`.

        The prompt's last token is never among them: its row predicts the answer's first.
        """
        best, length, usable = None, 0, tokens[:-1]
        for kept in self._kept:
            shared = common(kept.tokens, usable)
            if shared > length:
                best, length = kept, shared
        length -= length % unit
        if best is None or not length:
            return None, 0
        self._kept = [*(kept for kept in self._kept if kept is not best), best]
        return best.state, length

    def keep(self, tokens: Sequence[int], state: PrefixState) -> None:
        """Hold a prefix; those it contains are dropped, then the least recently used ones."""
        made = KeptPrefix(tuple(tokens), state)
        held = [kept for kept in self._kept if common(kept.tokens, made.tokens) < len(kept.tokens)] + [made]
        while held and _positions(held) > self.positions:
            held.pop(0)
        # At once: an interrupt leaves the old ones or the new ones.
        self._kept = held

    def trim(self, fits: Callable[[Sequence[KeptPrefix]], bool]) -> None:
        """Drop the least recently used ones until the others fit."""
        held = self._kept
        while held and not fits(held):
            held = held[1:]
        self._kept = held

    def clear(self) -> None:
        """Give all the memory back."""
        self._kept = []


def _positions(held: Sequence[KeptPrefix]) -> int:
    return sum(len(kept.tokens) for kept in held)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))
