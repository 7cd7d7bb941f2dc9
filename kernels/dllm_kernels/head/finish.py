"""From what every block of the vocabulary said to probability, entropy and margin."""

from dataclasses import dataclass

import torch
from torch import Tensor

#: Lower logits, minus infinity too, count as this far below the largest: 1.6e-38 of its weight. Below,
#: exp leaves the normal numbers, and an element takes the CPU sixteen times as long.
FLOOR = -87.0


@dataclass(frozen=True, slots=True)
class Sums:
    """Per row and block of the vocabulary, what its softmax needs; float [N, blocks].

    :param largest: the block's largest logit.
    :param mass: sum of e = exp(logit - largest).
    :param moment: sum of e * (logit - largest).
    """

    largest: Tensor
    mass: Tensor
    moment: Tensor


def block_sums(logits: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Mass and moment, float32 [n], of one block of logits, float32 [n, w], which is overwritten."""
    anchor = largest.masked_fill(largest == -torch.inf, 0.0)
    shifted = logits.sub_(anchor[:, None]).clamp_(min=FLOOR)
    weights = shifted.exp()
    return weights.sum(-1), shifted.mul_(weights).sum(-1)


def statistics(sums: Sums, chosen: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probability of the chosen logits, entropy, and margin; float32 [n] each.

    :param chosen: float32 [n], logit of the token drawn.
    :param second: float32 [n], second largest logit.
    """
    largest = sums.largest.double()
    top = largest.amax(-1)
    empty = largest == -torch.inf
    below = (largest - top[:, None]).masked_fill(empty, 0.0)
    scale = below.exp().masked_fill(empty, 0.0)
    mass = sums.mass.double()
    total = (scale * mass).sum(-1)
    moment = (scale * (sums.moment.double() + below * mass)).sum(-1)
    probability = (chosen.double() - top).exp() / total
    margin = (1.0 - (second.double() - top).exp()) / total
    entropy = total.log() - moment / total
    return probability.float(), entropy.clamp(min=0.0).float(), margin.float()
