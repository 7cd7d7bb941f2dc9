"""`forward(input_ids, labels=...)`: the loss a family was trained with, of a batch that is noised here."""

from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.denoisers.native import head_of
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.errors import OptionError
from dllm_plugins.families.spec import block_length as own_block_length
from dllm_plugins.modes.dreamon import expand_id
from dllm_plugins.processes.merging import swallowing
from dllm_plugins.processes.merging import with_ends
from dllm_plugins.processes.objectives import Noised
from dllm_plugins.processes.objectives import Objective
from dllm_plugins.processes.objectives import context_weight
from dllm_plugins.processes.objectives import noised
from dllm_transformers.canvas_loss import canvas_loss
from dllm_transformers.training_batch import Batch
from dllm_transformers.training_batch import mean_of_next
from dllm_transformers.visibility import clean_and_noisy
from dllm_transformers.visibility import counted as count_positions
from dllm_transformers.visibility import whole_sequence


@dataclass(frozen=True)
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

    def merged(self, drawn: Noised, generator: torch.Generator | None) -> tuple["_Training", Noised]:
        """With masks that stand for two tokens; what they have taken in is hidden, behind all other tokens.

        DreamOn's code leaves it in its place, where a token behind it is predicted from a mask that sees nothing. Here
        it is predicted from the token before it, as it is decoded.
        """
        batch = self.batch
        ends = batch.clean == self.model.spec.eos_id
        grows = swallowing(drawn, batch.counted, ends, self.objective.merged, generator)
        real = batch.real & ~F.pad(grows[:, :-1], (1, 0), value=False)
        order = (~real).long().argsort(dim=1, stable=True)
        opened = (with_ends(drawn, batch.counted, ends).open & real).gather(1, order)
        clean = batch.clean.masked_fill(grows, _expand_id(self.model)).gather(1, order)
        real = real.gather(1, order)
        moved = Batch(clean, batch.counted.gather(1, order) & real, real, count_positions(real))
        return replace(self, batch=moved), Noised(opened, drawn.share)

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

    @cached_property
    def _head(self) -> Any:
        return head_of(self.model.native)

    def draw(self, generator: torch.Generator | None) -> Noised:
        """What is masked; without noise every token is predicted, from those before it."""
        if self.objective.causal:
            return Noised(self.batch.counted, torch.ones_like(self.batch.counted, dtype=torch.float64))
        return noised(self.objective, self.batch.counted, self.blocks, generator, self._length)

    def hidden(self, drawn: Noised) -> tuple[Tensor, Tensor | None]:
        """Of the noised text, float [batch, length, width], and of the clean one where it was forwarded, too."""
        native, checkpoint, batch = self.model.native, self.model.checkpoint, self.batch
        body, causal = native.base_model, self.objective.causal
        noisy = batch.clean if causal else batch.clean.masked_fill(drawn.open, self.model.spec.mask_id)
        if not self.objective.clean_prefix:
            mask, either = batch.real.long(), causal and checkpoint.layout.attention != "causal"
            return whole_sequence(body, checkpoint, noisy, mask, self.positions, None, self.block_length, either), None
        order = self._order(drawn)
        seen = clean_and_noisy(
            batch.real, batch.positions, self._length, self.objective.within, causal=bool(self.objective.clean)
        )
        found: Tensor = body(
            input_ids=torch.cat([batch.clean, noisy.gather(1, order)], dim=1),
            attention_mask=additive(seen, native.dtype),
            position_ids=torch.cat([batch.positions, batch.positions.gather(1, order)], dim=1),
            use_cache=False,
        )[0]
        clean, said = found.chunk(2, dim=1)
        return torch.zeros_like(said).scatter(1, order[..., None].expand_as(said), said), clean

    def _order(self, drawn: Noised) -> Tensor:
        """Where each token of the noisy text stands: int64 [batch, length].

        In models that write from left to right what a block holds already stands before what is open.
        """
        if not self.objective.known_first:
            return torch.arange(self.batch.clean.shape[1], device=drawn.open.device).expand_as(drawn.open)
        # Padding on the left has the first position, and stays where it is.
        key = torch.where(self.batch.real, 2 * self.blocks + drawn.open.long(), -1)
        last = 2 * self.blocks.max() + 2
        behind = ~self.batch.real & (self.batch.real.cumsum(1) > 0)
        return key.masked_fill(behind, int(last)).argsort(dim=1, stable=True)

    def said(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Logits [N, vocabulary] of these rows, bool [batch, length]; nobody asks the head about others."""
        found: Tensor = self._head(hidden[rows])
        return found

    def rows(self, opened: Tensor) -> Tensor:
        """Those that predict what is open."""
        return opened.roll(-1, dims=1) if self.shifted else opened

    def summed(self, drawn: Noised, said: Tensor) -> tuple[Tensor, Tensor]:
        """Weights times -log p(clean token), over the masked positions, and the sum of the weights."""
        said = said if said.dtype == torch.float64 else said.float()
        if self.objective.never_mask:
            said = said.index_fill(-1, torch.tensor([self.model.spec.mask_id], device=said.device), -torch.inf)
        found = F.cross_entropy(said, self.batch.clean[drawn.open], reduction="none")
        weight = self._weight(drawn, found).to(found.dtype)
        if self.objective.over == "ends as one":
            weight = weight * self._counts(drawn)
        return (found * weight).sum(), weight.sum()

    def divisor(self, drawn: Noised, weights: Tensor) -> Tensor:
        """By what the sum is divided; weights is the sum of the weights."""
        if self.objective.over == "labels":
            return self.batch.counted.sum().clamp(min=1)
        if self.objective.over == "weights":
            return weights.clamp(min=1e-8)
        masked = self._counts(drawn).sum() if self.objective.over == "ends as one" else drawn.open.sum()
        return masked.clamp(min=1)

    def _counts(self, drawn: Noised) -> Tensor:
        """What each masked token counts, [masked]: all ends of text together as much as one other token."""
        ends = self.batch.clean[drawn.open] == self.model.spec.eos_id
        return torch.where(ends, 1 / ends.sum().clamp(min=1), 1.0)

    def _weight(self, drawn: Noised, found: Tensor) -> Tensor:
        """Of each masked position, [masked]."""
        if self.objective.weight == "one":
            return torch.ones_like(found)
        if self.objective.weight == "context":
            return context_weight(drawn.open, self.batch.real)[drawn.open]
        if self.objective.weight == "late":
            return 1 - drawn.share[drawn.open]
        rarity = 1 / drawn.share[drawn.open]
        return rarity if self.objective.weight == "reciprocal" else 1 + (-found.detach()).exp() * rarity

    def logits(self, hidden: Tensor, rows: Tensor, said: Tensor) -> Tensor:
        """Of every row, float [batch, length, vocabulary], without a gradient: the loss has read its own already."""
        with torch.no_grad():
            found = said.new_empty(*rows.shape, said.shape[-1])
            found[rows] = said.detach()
            found[~rows] = self._head(hidden[~rows])
        return found


def _expand_id(model: Any) -> int:
    """The token that becomes two open positions.

    :raises OptionError: where the model has none.
    """
    found = expand_id(model.spec)
    if found >= model.checkpoint.vocabulary:
        raise OptionError(
            f"the checkpoint has {model.checkpoint.vocabulary} token ids, and the token that expands would be {found}; "
            f"say expand_token_id in its config.json"
        )
    return found


def training_loss(
    model: Any,
    objective: Objective,
    batch: Batch,
    positions: Tensor | None,
    block_length: int | None,
    generator: torch.Generator | None,
    items: Tensor | int | None,
) -> tuple[Tensor, Tensor | None]:
    """The loss, a scalar, and the logits of the noised text, float [batch, length, vocabulary].

    There are none where the model's `loss_only` asks for none; what is learnt of uniform noise always has them.

    :param positions: `position_ids` as the caller gave them.
    :param items: how many labels all batches of a step have together; those of this one if not given.
    :raises OptionError: for what has no effect on the family.
    """
    if objective.noise == "uniform":
        if positions is not None:
            raise OptionError(f"position_ids has no effect on {model.checkpoint.layout.name}; leave it out")
        length = own_block_length(model.checkpoint) if block_length is None else block_length
        return canvas_loss(model, objective, batch, length, generator, items)
    training = _Training(model, objective, batch, positions, block_length)
    drawn = training.draw(generator)
    if objective.merged:
        if positions is not None:
            raise OptionError("position_ids has no effect where masks stand for two tokens; leave it out")
        training, drawn = training.merged(drawn, generator)
    hidden, clean = training.hidden(drawn)
    rows = training.rows(drawn.open)
    said = training.said(hidden, rows)
    total, weights = training.summed(drawn, said)
    if objective.complementary:
        rest = replace(drawn, open=batch.counted & ~drawn.open)
        total = total + training.summed(rest, training.said(training.hidden(rest)[0], training.rows(rest.open)))[0]
    labels = batch.counted.sum().clamp(min=1)
    # This batch's share of the step; a mean over masked tokens is one of the batch, which counts by its labels.
    share = 1 if items is None else labels / items
    loss = objective.noisy * total / training.divisor(drawn, weights)
    if objective.clean:
        assert clean is not None, "it stands before the noisy text"
        loss = loss + objective.clean * mean_of_next(head_of(model.native), clean, batch, batch.counted)
    return loss * share, None if model.loss_only else training.logits(hidden, rows, said)
