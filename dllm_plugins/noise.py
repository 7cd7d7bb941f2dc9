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
    """Random numbers of one request."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._recent: dict[tuple[int, ...], Tensor] = {}

    def uniform(self, key: tuple[int, ...], count: int) -> Tensor:
        """`count` float64 numbers in (0, 1) for a key of up to four non-negative integers."""
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
