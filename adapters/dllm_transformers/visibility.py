"""Logits of a whole sequence: who sees whom by the family's attention, as a mask for the class that computes."""

from inspect import signature
from typing import Any
from typing import Literal

import torch
from torch import Tensor

from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.spec import block_length as own_block_length

#: Attention of families that may also be forwarded causally, on the same weights.
TWO_MASKS = "causal context, bidirectional block"
BOTH_WAYS = ("bidirectional", TWO_MASKS)
LEFTWARDS = ("causal", "causal, reordered")


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
    """
    length = real.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool, device=real.device)[None]
    if causal or layout.attention in LEFTWARDS:
        seen = seen.tril()
    elif layout.attention == "block-causal":
        block = positions // block_length
        seen = block[:, None, :] <= block[:, :, None]
    else:
        assert layout.attention in BOTH_WAYS, layout.attention
    itself = torch.eye(length, dtype=torch.bool, device=real.device)
    return (seen & real[:, None, :]) | itself


def clean_and_noisy(
    real: Tensor,
    positions: Tensor,
    block_length: int,
    within: Literal["both ways", "leftwards"] = "both ways",
    *,
    causal: bool = False,
) -> Tensor:
    """Which keys each token of a clean text and of the noisy one behind it sees: bool [batch, 2 length, 2 length].

    Clean tokens see their own block and those before it, all clean; noisy ones their own block, which is noisy, and
    the clean blocks before it (BD3-LM, arXiv 2503.09573, appendix B). Each noisy block is so predicted as when it is
    decoded, all of them in one pass.

    :param real: bool [batch, length], false at padding.
    :param positions: int64 [batch, length]; blocks are aligned to 0.
    :param within: what noisy tokens see of their own block.
    :param causal: clean tokens see no clean ones behind them.
    """
    block = positions // block_length
    query, key = block[:, :, None], block[:, None, :]
    before = torch.ones_like(query == key).tril()
    own = (query == key) & before if within == "leftwards" else query == key
    from_clean = torch.cat([before if causal else query >= key, torch.zeros_like(own)], dim=2)
    from_noisy = torch.cat([query > key, own], dim=2)
    seen = torch.cat([from_clean, from_noisy], dim=1) & real.repeat(1, 2)[:, None, :]
    return seen | torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)


def whole_sequence(
    native: Any,
    checkpoint: Checkpoint,
    input_ids: Tensor,
    mask: Tensor | None,
    position_ids: Tensor | None,
    canvas: Tensor | None,
    block_length: int | None,
    causal: bool,
) -> Tensor:
    """See :meth:`~dllm_transformers.DiffusionModelForCausalLM.forward`.

    :param native: the class that computes, or its body.
    :param canvas: its `decoder_input_ids`.
    :returns: float [batch, length, vocabulary]; of a body its hidden states, [batch, length, width].
    :raises OptionError: for what has no effect on this family.
    """
    layout = checkpoint.layout
    apart = "decoder_input_ids" in signature(native.forward).parameters
    own = apart or layout.attention == "own"
    for name, value, fits in (
        ("decoder_input_ids", canvas, apart),
        ("position_ids", position_ids, not own),
        ("block_length", block_length, layout.attention == "block-causal"),
        ("causal", causal or None, layout.attention == TWO_MASKS and not own),
    ):
        if value is not None and not fits:
            raise OptionError(
                f"{name} has no effect on {layout.name}, whose attention is {layout.attention}; leave it out"
            )
    if own:
        more = {"decoder_input_ids": canvas} if apart else {}
        found: Tensor = native(input_ids=input_ids, attention_mask=mask, **more)[0]
        return found
    real = torch.ones_like(input_ids) if mask is None or mask.dim() != 2 else mask
    positions = counted(real.bool()) if position_ids is None else position_ids.expand_as(input_ids)
    if mask is None or mask.dim() == 2:
        length = own_block_length(checkpoint) if block_length is None else block_length
        mask = additive(visible(layout, real.bool(), positions, length, causal), native.dtype)
    found = native(input_ids=input_ids, attention_mask=mask, position_ids=positions, use_cache=False)[0]
    return found
