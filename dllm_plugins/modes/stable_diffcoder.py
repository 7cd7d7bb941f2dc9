"""Stable-DiffCoder's block diffusion (arXiv 2601.15892).

Source: ByteDance-Seed/Stable-DiffCoder, the modelling file of the checkpoints (MIT): Fast-dLLM's
threshold rule, confidence in float64, on blocks aligned to position 0 with an exact
cache. Without a threshold, the masks of the block are spread over its passes, the
remainder first.
"""

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.choosing import at_least
from dllm_plugins.modes.choosing import quotas
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.steps import Counts
from dllm_plugins.prediction import probability_of

DEFAULT_THRESHOLD = 0.95


class StableDiffCoderSettings(Settings):
    """Options of Stable-DiffCoder's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    threshold: float | None = Field(None, description=f"commit all that are as probable ({DEFAULT_THRESHOLD})")
    steps: int | None = Field(
        None, description="passes of the whole answer, as many for each block, in place of a threshold"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> "StableDiffCoderSettings":
        if self.threshold is not None and self.steps is not None:
            raise ValueError(f"steps={self.steps} has no effect with threshold={self.threshold}; leave one out")
        return self


def chosen(confidence: Tensor, quota: int, threshold: float | None) -> list[int]:
    """Indices into the open positions; at least one with a threshold. Confidence float64 [N]."""
    if threshold is None:
        return torch.topk(confidence, min(quota, len(confidence))).indices.tolist()
    return at_least(confidence, threshold)


def start(canvas: Canvas, settings: StableDiffCoderSettings, spec: ModelSpec) -> Program:
    """Block after block; a finished one is final."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    threshold = DEFAULT_THRESHOLD if settings.steps is None and settings.threshold is None else settings.threshold
    for block in blocks.answer(whole=False):
        schedule = iter(quotas(len(canvas.open(block)), settings.steps or blocks.length))
        while positions := canvas.open(block):
            logits = (yield from blocks.forward(block, positions)).logits
            tokens = draw_open(canvas, logits, positions)
            sure = probability_of(logits, tokens, torch.float64)
            for index in chosen(sure, next(schedule, 1), threshold):
                canvas.write(positions[index], int(tokens[index]), logits[index])
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="stable_diffcoder",
    summary="blocks aligned to position 0, threshold in float64",
    source="ByteDance-Seed/Stable-DiffCoder (arXiv 2601.15892)",
    settings=StableDiffCoderSettings,
    start=start,
    unheld=None,
    keeps_blocks=True,
    suffix=True,
    counts=Counts.ANSWER_AT_MOST,
)
