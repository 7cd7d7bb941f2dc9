"""The loss of DiffusionGemma: one noisy canvas of each text behind its clean beginning, and the clean text itself.

Read in NVIDIA-NeMo/Automodel 36044ad, `recipes/dllm/train_ft.py` and `components/loss/dllm_loss.py`. There all
canvases of an answer are forwarded and one, drawn at random, counts. No canvas sees another, so here that one alone
is forwarded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.denoisers.gemma_plain import FULL
from dllm_plugins.denoisers.gemma_plain import SLIDING
from dllm_plugins.denoisers.native_cache import as_cache
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.errors import OptionError
from dllm_plugins.processes.objectives import Objective
from dllm_plugins.processes.objectives import noised
from dllm_plugins.processes.objectives import uniform_draws
from dllm_transformers.training_batch import Batch
from dllm_transformers.training_batch import mean_of_next


@dataclass(frozen=True, slots=True)
class _Canvas:
    """One canvas of each text, moved to the left.

    :param begin: its first position, int64 [batch].
    :param place: where its tokens stand in the batch, int64 [batch, canvas].
    :param real: which are there, bool [batch, canvas].
    """

    begin: Tensor
    place: Tensor
    real: Tensor

    def of(self, values: Tensor) -> Tensor:
        """Its part of [batch, length]."""
        return values.gather(1, self.place)


def canvas_loss(
    model: Any,
    objective: Objective,
    batch: Batch,
    block_length: int,
    generator: torch.Generator | None,
    items: Tensor | int | None,
) -> tuple[Tensor, Tensor]:
    """The loss, a scalar, and the logits of the canvases, float [batch, canvas, vocabulary], without a gradient.

    Numbers are drawn in this order: the share of each text that is noised, what is, by which tokens, which canvas of
    each answer counts, and which texts are conditioned on what the model said of the canvas before.

    :param items: how many labels all batches of a step have together; those of this one if not given.
    :raises OptionError: for a text in which what is learnt does not stand together, behind its prompt.
    """
    draw = partial(uniform_draws, generator, device=batch.clean.device)
    length = batch.clean.shape[1]
    changed = noised(objective, batch.counted, torch.zeros_like(batch.clean), generator, length).open
    others = (draw(*batch.clean.shape) * model.checkpoint.vocabulary).long()
    canvas = _choose(batch, block_length, draw(len(batch.clean)))
    conditioned = draw(len(batch.clean)) < objective.conditioned

    native = model.native
    encoded = _encode(native, batch)
    decode = _decoder(native, batch, canvas, encoded, canvas.of(batch.clean.where(~changed, others)))
    with torch.no_grad():
        first = _logits(native, decode())
    said = _logits(native, decode(self_conditioning_logits=first, self_conditioning_mask=conditioned))

    learnt = canvas.of(batch.counted) & canvas.real
    found = F.cross_entropy(said[learnt], canvas.of(batch.clean)[learnt], reduction="sum") / learnt.sum().clamp(min=1)
    clean = mean_of_next(partial(_logits, native), encoded.last_hidden_state, batch, batch.real)
    share = 1 if items is None else batch.counted.sum().clamp(min=1) / items
    return (objective.noisy * found + objective.clean * clean) * share, said.detach()


def _choose(batch: Batch, block_length: int, luck: Tensor) -> _Canvas:
    """One of the canvases that an answer fills, the first of which begins with it; luck [batch], from 0 to 1."""
    far = batch.positions.max() + 1
    first = batch.positions.masked_fill(~batch.counted, far).amin(1)
    count = batch.counted.sum(1)
    last = batch.positions.masked_fill(~batch.counted, -1).amax(1)
    if bool(((count > 0) & (last - first + 1 != count)).any()):
        raise OptionError(
            "labels of a text begin, end and begin again, and one answer of a chat is learnt on a canvas: "
            "give -100 for all others, as DiffusionCollator does"
        )
    end = batch.positions.masked_fill(~batch.real, -1).amax(1) + 1
    blocks = ((end - first).clamp(min=1) - 1) // block_length + 1
    begin = first + (luck * blocks).long() * block_length
    inside = (
        batch.real
        & (count > 0)[:, None]
        & (batch.positions >= begin[:, None])
        & (batch.positions < begin[:, None] + block_length)
    )
    widest = max(int(inside.sum(1).max()), 1)
    place = (~inside).long().argsort(dim=1, stable=True)[:, :widest]
    return _Canvas(begin, place, inside.gather(1, place))


def _encode(native: Any, batch: Batch) -> Any:
    """Clean texts from left to right: hidden states, and a cache of their keys."""
    length = batch.clean.shape[1]
    away = torch.arange(length, device=batch.clean.device)
    away = away[:, None] - away[None, :]
    seen = (away >= 0) & batch.real[:, None, :] | (away == 0)
    window = native.config.get_text_config().sliding_window
    masks = {FULL: additive(seen, native.dtype), SLIDING: additive(seen & (away < window), native.dtype)}
    encoder = native.base_model.get_encoder()
    cache = {_cache_name(encoder): as_cache([])}
    return encoder(input_ids=batch.clean, attention_mask=masks, position_ids=batch.positions, **cache)


def _decoder(native: Any, batch: Batch, canvas: _Canvas, encoded: Any, ids: Tensor) -> Callable[..., Tensor]:
    """What says hidden states [batch, canvas, width] of noisy ids [batch, canvas].

    Each token sees all of its canvas and the clean tokens before it, in sliding layers the last `window - 1` of them.
    """
    window = native.config.get_text_config().sliding_window
    before = batch.real & (batch.positions < canvas.begin[:, None])
    near = before & (batch.positions > canvas.begin[:, None] - window)
    width = ids.shape[1]
    # A place that holds nothing sees itself, so that no row of the attention is empty.
    own = canvas.real[:, None, :] | torch.eye(width, dtype=torch.bool, device=ids.device)

    def mask(seen: Tensor) -> Tensor:
        return additive(torch.cat([seen[:, None].expand(-1, width, -1), own], dim=2), native.dtype)

    decoder = native.base_model.get_decoder()
    name = _cache_name(decoder)

    def decode(**conditioning: Tensor) -> Tensor:
        found: Tensor = decoder(
            decoder_input_ids=ids,
            decoder_attention_mask={FULL: mask(before), SLIDING: mask(near)},
            decoder_position_ids=canvas.of(batch.positions),
            **{name: getattr(encoded, name)},
            **conditioning,
        ).last_hidden_state
        return found

    return decode


def _cache_name(part: Any) -> str:
    return "cache" if "cache" in signature(part.forward).parameters else "past_key_values"


def _logits(native: Any, hidden: Tensor) -> Tensor:
    """In single precision or better, softly capped."""
    said: Tensor = native.get_output_embeddings()(hidden)
    said = said if said.dtype == torch.float64 else said.float()
    cap = native.final_logit_softcapping
    capped: Tensor = torch.tanh(said / cap) * cap
    return capped
