"""The training loss at open rows, with and without the draft head: towards the text, and towards the base's own odds."""

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.training.batches import TrainingBatch
from dllm_plugins.training.model import KeysAndValues
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk

OFFSET_DECAY = 0.85


class Clean(NamedTuple):
    """What the unchanged base makes of clean text.

    :param hidden: final states [A, N, hidden]; the one at a position says what the base expects at the next.
    :param past: keys and values of each layer.
    """

    hidden: Tensor
    past: KeysAndValues


@torch.no_grad()
def clean_pass(trunk: Trunk, batch: TrainingBatch) -> Clean:
    """The clean text through the unchanged base."""
    positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand(batch.tokens.shape)
    return Clean(*trunk.forward(trunk.base.embedding[batch.tokens], positions, None))


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


def chain_hidden(trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
    """Refined hidden states and the right tokens of the open rows, every left token given."""
    hidden = open_hidden(trunk, denoiser, batch, clean_pass(trunk, batch).past)
    return refine(trunk, denoiser, batch, hidden, random.Random(0), drop=0.0), _left(batch, 0)


def refine(
    trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch, hidden: Tensor, rng: random.Random, drop: float
) -> Tensor:
    """Apply the draft head with the true left tokens; the second one is dropped at rate `drop`."""
    embedding = trunk.base.embedding
    far = embedding[_left(batch, 2)]
    if drop > 0:
        generator = torch.Generator().manual_seed(rng.getrandbits(48))
        far = far * (torch.rand(len(far), 1, generator=generator) >= drop).to(far)
    return denoiser.refine(hidden, embedding[_left(batch, 1)], far)


@dataclass(frozen=True, slots=True)
class Aim:
    """What open rows are trained towards.

    :param vocabulary: sorted ids that hold every target; probabilities are among these.
    :param plain: weight of the loss without the draft head; 0 leaves it out.
    :param distil: how much of the loss is the divergence from the base's own distribution, the rest being the
        cross-entropy of the text's token.
    """

    vocabulary: Tensor
    plain: float
    distil: float


def denoising_loss(
    trunk: Trunk, denoiser: LowRankDenoiser, batch: TrainingBatch, clean: Clean, aim: Aim, rng: random.Random
) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss of the open rows, and its parts for the log."""
    hidden = open_hidden(trunk, denoiser, batch, clean.past)
    target = torch.searchsorted(aim.vocabulary, _left(batch, 0))
    head = trunk.base.head[aim.vocabulary]
    weight = OFFSET_DECAY ** batch.offset[batch.open].float()
    weight = weight / weight.sum()
    taught = F.linear(_taught(batch, clean.hidden), head) if aim.distil else None
    parts: dict[str, float] = {}

    def loss(name: str, states: Tensor) -> Tensor:
        logits = F.linear(states, head)
        each = cross_entropy(logits, target)
        parts[name] = (each.detach() * weight).sum().item()
        if taught is not None:
            apart = divergence(logits, taught)
            parts[f"{name}_apart"] = (apart.detach() * weight).sum().item()
            each = (1 - aim.distil) * each + aim.distil * apart
        return (each * weight).sum()

    chained = loss("chain", refine(trunk, denoiser, batch, hidden, rng, drop=0.1))
    return (chained + aim.plain * loss("plain", hidden) if aim.plain else chained), parts


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """-log p(target) of each row, float32 [N]; logits [N, V], target int64 [N]."""
    return F.cross_entropy(logits.float(), target, reduction="none")


def divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """KL(teacher, student) of each row, float32 [N], over the tokens that both rows [N, V] of logits are of.

    Where these are not the whole vocabulary, both distributions are those given that it is one of them. Source:
    distillation, arXiv 1503.02531; for drafts DistillSpec, arXiv 2310.08461.
    """
    teacher, student = (F.log_softmax(part.float(), dim=-1) for part in (taught, logits))
    return (teacher.exp() * (teacher - student)).sum(-1)


def _taught(batch: TrainingBatch, hidden: Tensor) -> Tensor:
    """The base's states where it says what the open rows are to guess, [N, hidden]: one place to the left of each."""
    place = (batch.position - 1).clamp(min=0)
    return torch.take_along_dim(hidden, place.unsqueeze(-1), dim=1)[batch.open]
