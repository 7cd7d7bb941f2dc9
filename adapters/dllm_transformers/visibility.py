"""Who sees whom in a whole sequence, by the family's attention: the mask of `forward`."""

import torch
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_plugins.families.layout import Layout

#: Attention of families that may also be forwarded causally, on the same weights.
TWO_MASKS = "causal context, bidirectional block"


def counted(real: Tensor) -> Tensor:
    """Positions that count each row's tokens from 0, padding left out: int64 [batch, length].

    :param real: bool [batch, length].
    """
    return (real.long().cumsum(-1) - 1).clamp(min=0)


def visible(layout: Layout, real: Tensor, positions: Tensor, block_length: int, causal: bool) -> Tensor:
    """Which keys each token sees: bool [batch, length, length].

    A padded token sees itself, so that no row of the attention is empty.

    :param real: bool [batch, length], false at padding.
    :param positions: int64 [batch, length]; blocks of `block_length` are aligned to 0.
    :param causal: look leftwards only, where the family knows both.
    :raises OptionError: for `causal` where it has no effect.
    """
    if causal and layout.attention != TWO_MASKS:
        raise OptionError(f"causal=True: attention of {layout.name} is {layout.attention}; leave causal out")
    length = real.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=real.device)[None]
    if causal or layout.attention == "causal, reordered":
        seen = seen.tril()
    elif layout.attention == "block-causal":
        block = positions // block_length
        seen = block[:, None, :] <= block[:, :, None]
    itself = torch.eye(length, dtype=torch.bool, device=real.device)
    return (seen & real[:, None, :]) | itself


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """As the classes of transformers take it: [batch, 1, length, length]."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
