"""Masks that stand for two tokens, of which a model learns where a text is to grow (DreamOn).

Read in DreamLM/DreamOn 8a0a549, `src/trainer/sft_expand_dataset.py`.
"""

import torch
from torch import Tensor

from dllm_plugins.processes.objectives import Noised
from dllm_plugins.processes.objectives import uniform_draws


def with_ends(drawn: Noised, counted: Tensor, ends: Tensor) -> Noised:
    """All ends of text that are learnt masked, too; bool [batch, length] each."""
    return Noised(drawn.open | (counted & ends), drawn.share)


def swallowing(drawn: Noised, counted: Tensor, ends: Tensor, most: float, generator: torch.Generator | None) -> Tensor:
    """Which masks take in the one behind them: bool [batch, length].

    Half of the texts do it as likely as `most` says, the others the less likely the more of them is masked. One that
    was taken in may take in the next, too. Behind the first end of text nothing grows.

    :param drawn: what is masked at random, ends of text no more than others.
    :param counted: what is learnt, bool [batch, length].
    :param ends: where ends of text stand, the same.
    """
    even = uniform_draws(generator, len(counted), 1, device=counted.device) < 0.5
    masked = drawn.open.sum(1, keepdim=True) / counted.sum(1, keepdim=True).clamp(min=1)
    likely = torch.where(even, most, most * (1 - masked))
    opened = with_ends(drawn, counted, ends).open
    text = (counted & ends).cumsum(1) == 0
    both = opened & torch.cat([opened[:, 1:], torch.zeros_like(opened[:, :1])], dim=1)
    return both & text & (uniform_draws(generator, *counted.shape, device=counted.device) < likely)
