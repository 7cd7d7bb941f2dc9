"""Quick evaluation while training: how far drafts agree with held-out greedy answers.

The walk is what a real decoder does, because the answers *are* the base's greedy text:
each pass yields the frontier and the run of right drafts of the accepted group.
"""

from collections.abc import Container
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dllm_plugins.training.batches import TrainingRow
from dllm_plugins.training.batches import TrainingText
from dllm_plugins.training.batches import collate
from dllm_plugins.training.loss import chain_hidden
from dllm_plugins.training.model import LowRankDenoiser
from dllm_plugins.training.model import Trunk


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy by draft offset (left tokens given), and tokens per pass of the walk."""

    accuracy: list[float]
    tokens_per_pass: float


def _every_group(answer: TrainingText, size: int) -> list[TrainingRow]:
    starts = range(answer.prompt - 1, len(answer.tokens) - 2)
    return [
        TrainingRow(s + 2 + j, s, block, j, True)
        for block, s in enumerate(starts)
        for j in range(size)
        if s + 2 + j < len(answer.tokens)
    ]


def _walk(hits: list[list[bool]], length: int) -> int:
    """Passes needed for `length` tokens, when group s yields 1 + its leading run of hits."""
    place, passes, pending = 0, 0, 0
    while place < length:
        passes += 1
        place += pending + 1
        group = place - 1
        run = 0
        while group < len(hits) and run < len(hits[group]) and hits[group][run]:
            run += 1
        pending = run
    return passes


@torch.no_grad()
def simulate(
    trunk: Trunk, denoiser: LowRankDenoiser, answers: list[TrainingText], stops: Container[int], size: int
) -> Score:
    """Score the denoiser on held-out greedy answers of the base model.

    :param stops: ids that end an answer; `size` is that of a group of drafts.
    """
    right, seen = torch.zeros(size), torch.zeros(size)
    tokens = passes = 0
    for answer in answers:
        batch = collate([answer], [_every_group(answer, size)]).to(trunk.base.embedding.device)
        hidden, target = chain_hidden(trunk, denoiser, batch)
        hit = (F.linear(hidden, trunk.base.head).argmax(-1) == target).cpu()
        offsets = batch.offset[batch.open].cpu()
        groups: list[list[bool]] = []
        for good, offset in zip(hit.tolist(), offsets.tolist(), strict=True):
            if offset == 0:
                groups.append([])
            groups[-1].append(good)
        right += torch.bincount(offsets, hit.float(), minlength=size)
        seen += torch.bincount(offsets, minlength=size)
        useful = len(answer.tokens) - answer.prompt - (answer.tokens[-1] in stops)
        tokens += useful
        passes += _walk(groups, len(answer.tokens) - answer.prompt)
    return Score((right / seen.clamp(min=1)).tolist(), tokens / passes)
