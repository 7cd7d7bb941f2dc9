"""The training loss: cross-entropy at open rows, with and without the draft head."""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.training.batches import TrainingBatch
from dllm_plugins.training.model import KeysAndValues
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk

OFFSET_DECAY = 0.85


@torch.no_grad()
def clean_keys(trunk: Trunk, batch: TrainingBatch) -> KeysAndValues:
    """Keys and values of the clean text, from the unchanged base."""
    positions = torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)
    return trunk.forward(trunk.base.embedding[batch.tokens], positions, None)[1]


def open_hidden(trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch, past: KeysAndValues) -> Tensor:
    """Final hidden states of the open rows, [N, hidden], in row order."""
    embedding = trunk.base.embedding
    committed = embedding[batch.tokens.gather(1, batch.position)]
    mask_row = denoiser.weights["mask_embedding"].to(embedding.dtype)
    is_open = batch.open.unsqueeze(-1)
    x = torch.where(is_open, mask_row, committed)
    rope = (batch.position - batch.open.long()).clamp(min=0)
    gate = is_open.to(embedding.dtype) * SCALE
    hidden, _ = trunk.forward(x, rope, batch.mask, past, denoiser, gate)
    return hidden[batch.open]


def _left(batch: TrainingBatch, distance: int) -> Tensor:
    place = (batch.position - distance).clamp(min=0)
    return batch.tokens.gather(1, place)[batch.open]


def chain_hidden(
    trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch, rng: random.Random, drop: float
) -> tuple[Tensor, Tensor]:
    """Refined hidden states and the right tokens of the open rows."""
    hidden = open_hidden(trunk, denoiser, batch, clean_keys(trunk, batch))
    return refine(trunk, denoiser, batch, hidden, rng, drop), _left(batch, 0)


def refine(
    trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch, hidden: Tensor, rng: random.Random, drop: float
) -> Tensor:
    """Apply the draft head with the true left tokens; the second one is dropped at rate `drop`."""
    embedding = trunk.base.embedding
    far = embedding[_left(batch, 2)]
    if drop > 0:
        generator = torch.Generator().manual_seed(rng.getrandbits(48))
        far = far * (torch.rand(len(far), 1, generator=generator) >= drop)
    return denoiser.refine(hidden, embedding[_left(batch, 1)], far)


def denoising_loss(
    trunk: Trunk,
    denoiser: LowRankDenoiser,
    batch: TrainingBatch,
    past: KeysAndValues,
    vocabulary: Tensor,
    rng: random.Random,
    plain: float,
) -> tuple[Tensor, dict[str, float]]:
    """Weighted cross-entropy over the token subset `vocabulary` (sorted ids that hold every target).

    :param plain: weight of the loss without the draft head; 0 leaves it out.
    """
    hidden = open_hidden(trunk, denoiser, batch, past)
    target = torch.searchsorted(vocabulary, _left(batch, 0))
    head = trunk.base.embedding[vocabulary]
    weight = OFFSET_DECAY ** batch.offset[batch.open].float()
    weight = weight / weight.sum()

    def cross_entropy(states: Tensor) -> Tensor:
        logits = F.linear(states, head).float()
        return (F.cross_entropy(logits, target, reduction="none") * weight).sum()

    chained = cross_entropy(refine(trunk, denoiser, batch, hidden, rng, drop=0.1))
    parts = {"chain": chained.item()}
    if plain == 0:
        return chained, parts
    alone = cross_entropy(hidden)
    parts["plain"] = alone.item()
    return chained + plain * alone, parts
