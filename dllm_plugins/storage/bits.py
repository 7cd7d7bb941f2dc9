"""Integers of few bits, packed into words of 32."""

import torch
from torch import Tensor


def unpack(words: Tensor, bits: int) -> Tensor:
    """int32 [..., words] to int32 [..., words * 32 / bits], the lowest bits first, none below zero.

    :param bits: a divisor of 32.
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    return ((words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)
