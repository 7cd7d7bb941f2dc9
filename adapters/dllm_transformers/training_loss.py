"""`forward(input_ids, labels=...)`: the loss a family was trained with, of a batch that is noised here."""

from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.errors import OptionError
from dllm_plugins.families.spec import block_length as own_block_length
from dllm_plugins.processes.objectives import IGNORED
from dllm_plugins.processes.objectives import Noised
from dllm_plugins.processes.objectives import Objective
from dllm_plugins.processes.objectives import context_weight
from dllm_plugins.processes.objectives import noised
from dllm_transformers.visibility import clean_and_noisy
from dllm_transformers.visibility import counted as count_positions
from dllm_transformers.visibility import whole_sequence


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


@dataclass(frozen=True, slots=True)
class _Training:
    """One batch on its way to a loss.

    :param model: a :class:`~dllm_transformers.DiffusionModelForCausalLM`.
    :param positions: as they were given, if they were.
    :param block_length: the same.
    """

    model: Any
    objective: Objective
    batch: Batch
    positions: Tensor | None
    block_length: int | None

    @property
    def shifted(self) -> bool:
        """Whether the row to the left predicts a token."""
        return self.objective.causal or bool(self.model.checkpoint.layout.shifted)

    @property
    def blocks(self) -> Tensor:
        """Which block each token is in, int64 [batch, length]."""
        return self.batch.positions // self._length

    @property
    def _length(self) -> int:
        return own_block_length(self.model.checkpoint) if self.block_length is None else self.block_length

    def draw(self, generator: torch.Generator | None) -> Noised:
        """What is masked; without noise every token is predicted, from those before it."""
        if self.objective.causal:
            return Noised(self.batch.counted, torch.ones_like(self.batch.counted, dtype=torch.float64))
        return noised(self.objective, self.batch.counted, self.blocks, generator)

    def logits(self, drawn: Noised) -> Tensor:
        """Of the noised text, float [batch, length, vocabulary]."""
        native, checkpoint, batch = self.model.native, self.model.checkpoint, self.batch
        causal = self.objective.causal
        noisy = batch.clean if causal else batch.clean.masked_fill(drawn.open, self.model.spec.mask_id)
        if not self.objective.clean_prefix:
            mask, either = batch.real.long(), causal and checkpoint.layout.attention != "causal"
            return whole_sequence(native, checkpoint, noisy, mask, self.positions, None, self.block_length, either)
        seen = clean_and_noisy(batch.real, batch.positions, self._length)
        found: Tensor = native(
            input_ids=torch.cat([batch.clean, noisy], dim=1),
            attention_mask=additive(seen, native.dtype),
            position_ids=batch.positions.repeat(1, 2),
            use_cache=False,
            # Nobody asks the head about the clean half.
            logits_to_keep=noisy.shape[1],
        ).logits
        return found

    def summed(self, drawn: Noised, logits: Tensor) -> Tensor:
        """Weights times -log p(clean token), over the masked positions; logits of others are not read."""
        said = logits[drawn.open.roll(-1, dims=1) if self.shifted else drawn.open]
        said = said if said.dtype == torch.float64 else said.float()
        if self.objective.never_mask:
            said = said.index_fill(-1, torch.tensor([self.model.spec.mask_id], device=said.device), -torch.inf)
        found = F.cross_entropy(said, self.batch.clean[drawn.open], reduction="none")
        return (found * self._weight(drawn, found).to(found.dtype)).sum()

    def _weight(self, drawn: Noised, found: Tensor) -> Tensor:
        """Of each masked position, [masked]."""
        if self.objective.weight == "one":
            return torch.ones_like(found)
        if self.objective.weight == "context":
            return context_weight(drawn.open, self.batch.real)[drawn.open]
        rarity = 1 / drawn.share[drawn.open]
        return rarity if self.objective.weight == "reciprocal" else 1 + (-found.detach()).exp() * rarity


def training_loss(
    model: Any,
    objective: Objective,
    batch: Batch,
    positions: Tensor | None,
    block_length: int | None,
    generator: torch.Generator | None,
    items: Tensor | int | None,
) -> tuple[Tensor, Tensor]:
    """The loss, a scalar, and the logits of the noised text, float [batch, length, vocabulary].

    :param positions: `position_ids` as the caller gave them.
    :param items: how many labels all batches of a step have together; those of this one if not given.
    :raises OptionError: for what has no effect on the family.
    """
    training = _Training(model, objective, batch, positions, block_length)
    drawn = training.draw(generator)
    logits = training.logits(drawn)
    total = training.summed(drawn, logits)
    if objective.complementary:
        rest = replace(drawn, open=batch.counted & ~drawn.open)
        total = total + training.summed(rest, training.logits(rest))
    labels = batch.counted.sum().clamp(min=1)
    # This batch's share of the step; a mean over masked tokens is one of the batch, which counts by its labels.
    share = 1 if items is None else labels / items
    over = labels if objective.over == "labels" else drawn.open.sum().clamp(min=1)
    return total / over * share, logits
