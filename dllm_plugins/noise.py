"""Counter-based random numbers, one stream per request.

A draw depends only on (request seed, what it is for), never on the batch, the order of
arrival or a global generator. What it is for is a :class:`Key`, all of whose integers count.
Gumbel-max sampling (arXiv 1611.01144) keyed on the absolute position makes a verified draft
equal to the token AR decoding would draw; where nothing is verified that way, one uniform
number decides a position by the inverse of its distribution function.
The generator is Philox 4x64 (Salmon et al., SC 2011) as implemented by numpy.
"""

import threading
from enum import IntEnum
from enum import unique
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dllm_kernels.draws import draw_from

_SMALLEST = np.finfo(np.float64).tiny
_WORD = 1 << 64
#: Bytes of Gumbel numbers that a row remembers, one position's at least: a draft and its verification ask for the same.
KEPT_BYTES = 4 << 20


@unique
class Purpose(IntEnum):
    """What random numbers are for. No two uses share one, and a number never gets another meaning."""

    NEXT = 1
    """The token at an absolute position, drafted, verified or autoregressive."""
    CANVAS = 2
    """The token at an open position of a pass."""
    RULE_ORDER = 3
    """Which positions rule `random` commits."""
    REVEAL = 4
    """Which positions DiffuLLaMA reveals."""
    CONFIDENCE = 5
    """Which positions `alg_temp` commits."""
    ORIGIN = 6
    """Which positions Dream's `origin` commits."""
    TRANSFER_ORDER = 7
    """Which positions dllm's `remasking=random` commits."""
    TRANSFER_COUNT = 8
    """How many `stochastic_transfer` commits."""
    FLOW_MOVES = 9
    """Which positions jump in flow matching."""
    REMDM_MOVES = 10
    """Which positions ReMDM commits and takes back."""
    GEMMA_INITIAL = 11
    """What DiffusionGemma's canvas begins as."""
    GEMMA_DENOISED = 12
    """The token at each position of DiffusionGemma's canvas."""
    GEMMA_RENOISED = 13
    """What DiffusionGemma's unsure positions get."""
    UNIFORM_INITIAL = 14
    """What a canvas of uniform flow matching begins as."""
    UNIFORM_MOVES = 15
    """Which positions jump in uniform flow matching."""
    UNIFORM_SIDES = 16
    """Whether they jump to a token or to noise."""
    UNIFORM_BACK = 17
    """The noise they jump to."""
    MGDM_ORDER = 18
    """Which positions MGDM opens again."""
    LIKELIHOOD_SIZES = 19
    """How many tokens are masked where the likelihood of a text is bounded."""
    LIKELIHOOD_ORDER = 20
    """Which tokens those are."""
    PLUGIN = 1000
    """Whatever a plug-in draws; it tells its own uses apart by `extra`."""


class Key(NamedTuple):
    """What one draw is for; each integer from 0 to 2^64 - 1.

    :param position: in the row's text, 0 where the draw is for none in particular.
    :param step: pass or step that it belongs to.
    :param extra: tells apart what is the same otherwise.
    """

    purpose: Purpose
    position: int = 0
    step: int = 0
    extra: int = 0


class _Stream(threading.local):
    """One generator a thread, which is told before every draw where to begin: to make one takes ten times as long."""

    def __init__(self) -> None:
        self._bits = np.random.Philox(0)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state
        # Nothing is left over from the numbers before.
        self._state["buffer_pos"] = len(self._state["buffer"])

    def numbers(self, seed: int, key: "Key", count: int) -> np.ndarray:
        """`count` float64 numbers in [0, 1)."""
        words = self._state["state"]
        words["key"][:] = seed, key.purpose
        # The first word of the counter counts the numbers of one key.
        words["counter"][:] = 0, *key[1:]
        self._bits.state = self._state
        return self._generator.random(count)


_STREAM = _Stream()


def _check(key: Key) -> None:
    """Refuse a key of another form: what would be dropped or wrap around would share another one's numbers."""
    if len(key) != len(Key._fields) or not all(isinstance(word, int) and 0 <= word < _WORD for word in key):
        raise ValueError(f"{tuple(key)} is no key of noise; give Key(purpose, position, step, extra), each 0 or more")
    Purpose(key[0])


class RowNoise:
    """Random numbers of one request.

    `drawn` tells whether any have been asked for, so that the answer depends on the seed.

    :param seed: from 0 to 2^64 - 1.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < _WORD:
            raise ValueError(f"seed={seed} must be from 0 to 2^64 - 1")
        self.seed = seed
        self.drawn = False
        self._recent: dict[Key, Tensor] = {}

    @property
    def kept_bytes(self) -> int:
        """What is remembered of the last keys."""
        return sum(kept.nbytes for kept in self._recent.values())

    def uniform(self, key: Key, count: int) -> Tensor:
        """`count` float64 numbers in (0, 1).

        :raises ValueError: for a key that is none; see :class:`Key`.
        """
        _check(key)
        self.drawn = True
        return torch.from_numpy(np.maximum(_STREAM.numbers(self.seed, key, count), _SMALLEST))

    def gumbel(self, key: Key, count: int) -> Tensor:
        """`count` float64 standard Gumbel numbers; the last keys are remembered, see :data:`KEPT_BYTES`."""
        cached = self._recent.get(key)
        if cached is None or len(cached) != count:
            cached = -torch.log(-torch.log(self.uniform(key, count)))
            most = max(1, KEPT_BYTES // max(1, cached.nbytes))
            while len(self._recent) >= most:
                self._recent.pop(next(iter(self._recent)))
            self._recent[key] = cached
        return cached

    def tokens(self, key: Key, count: int, vocabulary: int) -> Tensor:
        """`count` ids below `vocabulary`, each equally likely; int64."""
        return (self.uniform(key, count) * vocabulary).long().clamp_(max=vocabulary - 1)

    def categorical(self, key: Key, probabilities: Tensor) -> Tensor:
        """One id per row of probabilities [N, V], by inverting its distribution function; int64 [N] on the CPU.

        One number decides a position, so a row costs no V draws.
        """
        picks = self.uniform(key, len(probabilities)).to(probabilities.device)
        found = [
            draw_from(row.to(torch.float64, copy=True), pick) for row, pick in zip(probabilities, picks, strict=True)
        ]
        return torch.stack(found).cpu()
