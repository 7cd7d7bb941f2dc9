"""Logits and their ids as one integer each, whose order is a total one.

`topk` picks any of several equal values, and bfloat16 logits are often equal. A key's
upper half is the logit, turned so that integers sort as the floats do; its lower half is
larger for a lower id. So no two keys are equal and the first id wins.
"""

import torch
from torch import Tensor

#: A key below all others: no token yet.
EMPTY = torch.iinfo(torch.int64).min
_LOW = 0xFFFFFFFF
_MAGNITUDE = 0x7FFFFFFF


def encode(logits: Tensor, first: int) -> Tensor:
    """Keys int64 [n, w] of float32 logits [n, w] whose first column is id `first`."""
    # Adding zero makes minus zero plus zero: they compare equal as floats.
    bits = (logits + 0.0).view(torch.int32)
    turned = bits ^ ((bits >> 31) & _MAGNITUDE)
    ids = torch.arange(first, first + logits.shape[1], device=logits.device)
    return (turned.long() << 32) + (_LOW - ids)


def ids_of(keys: Tensor) -> Tensor:
    """The ids in keys; int64."""
    return _LOW - (keys & _LOW)


def logits_of(keys: Tensor) -> Tensor:
    """The logits in keys; float32, minus infinity where a key is empty."""
    turned = (keys >> 32).int()
    logits = (turned ^ ((turned >> 31) & _MAGNITUDE)).view(torch.float32)
    return logits.masked_fill(keys == EMPTY, -torch.inf)
