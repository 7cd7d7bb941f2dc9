"""Counter-based random numbers, one stream per request.

A draw depends only on (request seed, what it is for), never on the batch, the order of
arrival or a global generator. Gumbel-max sampling (arXiv 1611.01144) keyed on the
absolute position makes a verified draft equal to the token AR decoding would draw.
The generator is Philox 4x64 (Salmon et al., SC 2011) as implemented by numpy.
"""

import numpy as np
import torch
from torch import Tensor

_SMALLEST = np.finfo(np.float64).tiny


class RowNoise:
    """Random numbers of one request.

    `drawn` tells whether any have been asked for, so that the answer depends on the seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.drawn = False
        self._recent: dict[tuple[int, ...], Tensor] = {}

    def uniform(self, key: tuple[int, ...], count: int) -> Tensor:
        """`count` float64 numbers in (0, 1) for a key of up to four non-negative integers."""
        self.drawn = True
        counter = np.zeros(4, dtype=np.uint64)
        counter[0] = 0
        words = [*key, 0, 0, 0][:3]
        counter[1:] = np.array(words, dtype=np.uint64)
        stream = np.random.Philox(key=np.array([self.seed, len(key)], dtype=np.uint64), counter=counter)
        numbers = np.random.Generator(stream).random(count)
        return torch.from_numpy(np.maximum(numbers, _SMALLEST))

    def gumbel(self, key: tuple[int, ...], count: int) -> Tensor:
        """`count` float64 standard Gumbel numbers; the last few keys are remembered."""
        cached = self._recent.get(key)
        if cached is None or len(cached) != count:
            if len(self._recent) >= 24:
                self._recent.pop(next(iter(self._recent)))
            cached = self._recent[key] = -torch.log(-torch.log(self.uniform(key, count)))
        return cached

    def tokens(self, key: tuple[int, ...], count: int, vocabulary: int) -> Tensor:
        """`count` ids below `vocabulary`, each equally likely; int64."""
        return (self.uniform(key, count) * vocabulary).long().clamp_(max=vocabulary - 1)

    def categorical(self, key: tuple[int, ...], probabilities: Tensor) -> Tensor:
        """One id per row of probabilities [N, V], by inverting its distribution function; int64 [N] on the CPU.

        One number decides a position, so a row costs no V draws.
        """
        picks = self.uniform(key, len(probabilities)).to(probabilities.device)
        found = []
        for row, pick in zip(probabilities, picks, strict=True):
            mass = row.double().cumsum(0)
            # The first id whose mass reaches the pick, which is above 0: never one without mass of its own.
            found.append(torch.searchsorted(mass, pick[None] * mass[-1]))
        return torch.cat(found).cpu()
