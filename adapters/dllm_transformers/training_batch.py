"""What a loss is computed of: clean text, and which of its tokens are to be learnt."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_plugins.processes.objectives import IGNORED
from dllm_transformers.visibility import counted as count_positions


@dataclass(frozen=True, slots=True)
class Batch:
    """Clean text to train on.

    :param clean: int64 [batch, length].
    :param counted: bool [batch, length]: has a label, and a row that predicts it.
    :param real: bool [batch, length], false at padding.
    :param positions: int64 [batch, length], padding left out.
    """

    clean: Tensor
    counted: Tensor
    real: Tensor
    positions: Tensor


def mean_of_next(head: Callable[[Tensor], Tensor], hidden: Tensor, batch: Batch, learnt: Tensor) -> Tensor:
    """The mean -log p of tokens of a clean text, each given those before it.

    :param head: logits of hidden states.
    :param hidden: of the text, seen from left to right, [batch, length, width].
    :param learnt: which tokens, bool [batch, length]; those without one before them are left out.
    """
    learnt = learnt & F.pad(batch.real[:, :-1], (1, 0), value=False)
    said = head(hidden[learnt.roll(-1, dims=1)])
    said = said if said.dtype == torch.float64 else said.float()
    return F.cross_entropy(said, batch.clean[learnt], reduction="sum") / learnt.sum().clamp(min=1)


def batch_of(
    input_ids: Tensor, labels: Tensor, mask: Tensor | None, positions: Tensor | None, *, shifted: bool
) -> Batch:
    """Check what is given and say which tokens count.

    :param shifted: whether the row to the left predicts a token, so that the first of a text has none.
    :raises OptionError: for labels that are not the clean text, and masks of four dimensions.
    """
    if labels.shape != input_ids.shape:
        raise OptionError(
            f"labels have the shape {tuple(labels.shape)} and input_ids {tuple(input_ids.shape)}; give one label for "
            f"each token, {IGNORED} where it is not to be learnt"
        )
    if mask is not None and mask.dim() != 2:
        raise OptionError(
            f"attention_mask has {mask.dim()} dimensions, and a loss makes its own masks of who sees whom; give "
            f"[batch, length], 0 at padding"
        )
    labelled = labels != IGNORED
    if bool(((labels != input_ids) & labelled).any()):
        raise OptionError(
            f"labels differ from input_ids; give the clean text in both, never shifted and without masks, and "
            f"{IGNORED} as the label of what is not to be learnt: noise is drawn here"
        )
    real = torch.ones_like(labelled) if mask is None else mask.bool()
    counted = labelled & real
    if shifted:
        counted = counted & F.pad(real[:, :-1], (1, 0), value=False)
    found = count_positions(real) if positions is None else positions.expand_as(input_ids)
    return Batch(input_ids, counted, real, found)
