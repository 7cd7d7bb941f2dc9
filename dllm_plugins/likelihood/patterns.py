"""Which tokens are masked when the likelihood of a text is bounded, and how much each such pattern counts.

The bound of a masked model (arXiv 2502.09992, equation 6 and appendix B.5): with l drawn evenly from 1 to L and l of
the L tokens masked evenly at random, log p(text) is at least the mean of L / l times the sum of log p(token | what is
not masked) over the masked ones. It is the mean log-likelihood over all orders in which the tokens may be revealed.
"""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise

#: Tokens of which all patterns could be listed at all.
_FEW = 16


@dataclass(frozen=True, slots=True)
class MaskPattern:
    """Tokens that are masked together.

    :param masked: which of the tokens, ascending and from 0; never none.
    :param weight: what the sum of their log-probabilities counts.
    """

    masked: tuple[int, ...]
    weight: float


def patterns(count: int, samples: int, noise: RowNoise, position: int) -> list[MaskPattern]:
    """Patterns over `count` tokens: all there are, each with its weight, if they are no more than `samples`.

    The sum over all is the bound itself, without chance. Otherwise `samples` are drawn, whose sizes are spread evenly
    as in LLaDA's `get_log_likelihood.py` (ML-GSAI/LLaDA b7e6c35); like ones are one pattern with their weights added.

    :param position: of the first of the tokens, which keys the noise.
    """
    if count <= _FEW and 2**count - 1 <= samples:
        return [
            MaskPattern(masked, 1 / (size * math.comb(count, size)))
            for size in range(1, count + 1)
            for masked in combinations(range(count), size)
        ]
    first = int(noise.uniform(Key(Purpose.LIKELIHOOD_SIZES, position), 1) * count)
    found: Counter[tuple[int, ...]] = Counter()
    for sample in range(samples):
        size = (first + round(sample * count / samples)) % count + 1
        order = noise.uniform(Key(Purpose.LIKELIHOOD_ORDER, position, sample), count).argsort()
        found[tuple(sorted(order[:size].tolist()))] += 1
    return [MaskPattern(masked, times * count / (len(masked) * samples)) for masked, times in found.items()]
