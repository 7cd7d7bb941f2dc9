"""The ways to train that are compared, each as a loss of one batch.

All see the same examples in the same order. Prompts are never noised and never count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.training.blocks.batches import layout
from dllm_plugins.training.blocks.batches import noised
from dllm_plugins.training.losses import cross_entropy
from dllm_plugins.training.losses import mask_noise
from dllm_plugins.training.losses import masked_diffusion
from dllm_plugins.training.losses import multi_granularity
from dllm_plugins.training.losses import uniform_noise

#: The path of method flow: most of it is mostly noise, as in arXiv 2407.15595.
CUBIC = Scheduler("polynomial")
#: Noise levels of MGDM in training, and its focus, by HKUNLP/diffusion-vs-ar 6743981 (`scripts/path`, `scripts/sudoku`).
LEVELS, FOCUS = 20, 1.0
#: Times stay this far from data, where a weight has no limit.
_LEAST = 1e-3


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions and answers: int64 [B, P] and [B, A].

    :param vocabulary: how many ids there are.
    :param block: positions denoised together, of method block.
    """

    prompts: Tensor
    answers: Tensor
    mask_id: int
    vocabulary: int
    block: int
    generator: torch.Generator

    def luck(self, *shape: int) -> Tensor:
        """Uniform numbers."""
        return torch.rand(*shape, generator=self.generator)

    def times(self) -> Tensor:
        """A time for each example, spread evenly over the batch, [B, 1]."""
        count = len(self.answers)
        return ((torch.arange(count) + self.luck(1)) / count * (1 - _LEAST))[:, None]


Loss = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True, slots=True)
class Method:
    """One way to train.

    :param loss: mean nats a token or what stands for them, of a model and a batch.
    :param kind: what its checkpoints are loaded as.
    :param order: in which order the words of an answer are written.
    """

    loss: Loss
    kind: Literal["causal", "masked", "unshifted", "blocks", "uniform"]
    order: Literal["forward", "reversed", "shuffled"] = "forward"


def _logits(model: Any, tokens: Tensor, sees: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
    """Logits [B, L, V]; `sees` bool [L, L], everything if not given."""
    length = tokens.shape[1]
    mask = torch.zeros(1, 1, length, length)
    if sees is not None:
        mask = mask.masked_fill(~sees, torch.finfo(torch.float32).min)
    places = torch.arange(length) if positions is None else positions
    found: Tensor = model(tokens, attention_mask=mask, position_ids=places[None], use_cache=False).logits
    return found


def left_to_right(model: Any, batch: Batch) -> Tensor:
    """-log p of each word of the answer, given all before it."""
    tokens = torch.cat([batch.prompts, batch.answers], dim=1)[:, :-1]
    length = tokens.shape[1]
    logits = _logits(model, tokens, torch.ones(length, length, dtype=torch.bool).tril())
    return cross_entropy(logits[:, batch.prompts.shape[1] - 1 :], batch.answers).mean() / batch.answers.shape[1]


def _of_answers(model: Any, batch: Batch, noisy: Tensor, shift: int = 1) -> Tensor:
    """Logits [B, A, V] where everything sees everything, and the row before a word predicts it, as in the source.

    A known word can so look up what follows it, as in a causal model, whose weights it may begin with.

    :param shift: 0 where a word's own row predicts it.
    """
    begin = batch.prompts.shape[1] - shift
    return _logits(model, torch.cat([batch.prompts, noisy], dim=1))[:, begin : begin + noisy.shape[1]]


def masked(model: Any, batch: Batch, shift: int = 1) -> Tensor:
    """The bound of masked diffusion (arXiv 2406.07524)."""
    time = 1 - batch.times()
    noisy = mask_noise(batch.answers, time.expand(batch.answers.shape), batch.luck(*batch.answers.shape), batch.mask_id)
    logits = _of_answers(model, batch, noisy, shift)
    loss = masked_diffusion(logits, batch.answers, noisy, time.expand(batch.answers.shape), batch.mask_id)
    return loss.mean() / batch.answers.shape[1]


def multi(model: Any, batch: Batch) -> Tensor:
    """MGDM's (arXiv 2410.14157): hard words and low noise count more."""
    level = torch.randint(LEVELS, (len(batch.answers), 1), generator=batch.generator)
    open_ = batch.luck(*batch.answers.shape) < (level + 1) / LEVELS
    logits = _of_answers(model, batch, batch.answers.masked_fill(open_, batch.mask_id))
    return multi_granularity(logits, batch.answers, open_, level, LEVELS, FOCUS)


def flow(model: Any, batch: Batch) -> Tensor:
    """Flow matching from masks with its cross-entropy (arXiv 2407.15595)."""
    time = batch.times().expand(batch.answers.shape)
    noisy = mask_noise(batch.answers, time, batch.luck(*batch.answers.shape), batch.mask_id, CUBIC)
    open_ = noisy == batch.mask_id
    loss = cross_entropy(_of_answers(model, batch, noisy), batch.answers, open_)
    return loss.sum() / open_.sum().clamp(min=1)


def uniform(model: Any, batch: Batch) -> Tensor:
    """Flow matching from random words with its cross-entropy, at every position; nothing is shifted."""
    shape = batch.answers.shape
    other = torch.randint(batch.vocabulary, shape, generator=batch.generator)
    noisy = uniform_noise(batch.answers, batch.times().expand(shape), batch.luck(*shape), other)
    logits = _of_answers(model, batch, noisy, shift=0)
    return cross_entropy(logits, batch.answers).mean() / shape[1]


def blocks(model: Any, batch: Batch) -> Tensor:
    """The bound of block diffusion, averaged over blocks (arXiv 2503.09573)."""
    length, (count, width) = batch.block, batch.answers.shape
    rows = noised(batch.prompts, batch.answers, length, batch.mask_id, batch.generator)
    positions, sees = layout(batch.prompts.shape[1], width, length)
    logits = _logits(model, rows.tokens, sees, positions)[:, :width]
    losses = F.cross_entropy(logits.flatten(0, 1), rows.targets.flatten(), reduction="none")
    return (losses.view(count, width) * rows.weights).sum() * length / (count * width)


METHODS = {
    "ar": Method(left_to_right, "causal"),
    "ar-reversed": Method(left_to_right, "causal", "reversed"),
    "ar-shuffled": Method(left_to_right, "causal", "shuffled"),
    "mdm": Method(masked, "masked"),
    "mdm-unshifted": Method(partial(masked, shift=0), "unshifted"),
    "mgdm": Method(multi, "masked"),
    "flow": Method(flow, "masked"),
    "block": Method(blocks, "blocks"),
    "uniform": Method(uniform, "uniform"),
}
