"""SDAR's block diffusion (arXiv 2510.06303), for the dense and the MoE body.

Source: JetAstra/SDAR c2041a8 `generate.py`. The quota of a pass comes from the block
length, not from what is open, so a block that begins in the prompt ends early. The
reference has no temperature 0: greedy here is the argmax with its own probability as
confidence. Where the quota exceeds what is open, as after a pass that committed more than its
share, the reference's top-k writes over committed positions, the prompt's among them; ours
takes what is open, or, with `rewrite`, draws committed positions of the answer anew as well.
"""

from collections.abc import Hashable
from typing import Literal

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.choosing import quotas
from dllm_plugins.modes.drawing import ask
from dllm_plugins.modes.slow_text import slow_text
from dllm_plugins.modes.steps import Counts


class SdarSettings(Settings):
    """Options of SDAR's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    steps: int | None = Field(None, description="passes a block is spread over; its length if not given")
    threshold: float = Field(0.85, description="low_confidence_dynamic: commit all that are more probable")
    remasking: Literal["low_confidence_dynamic", "low_confidence_static", "sequential"] = Field(
        "low_confidence_dynamic", description="which open positions a pass commits"
    )
    rewrite: bool = Field(
        default=False,
        description="where a quota exceeds what is open, fill it with committed positions of the block, as published",
    )

    @model_validator(mode="after")
    def _fit(self) -> "SdarSettings":
        if self.rewrite and self.remasking == "sequential":
            raise ValueError("rewrite=True has no effect with remasking='sequential'; leave it out")
        return self


def chosen(confidence: Tensor, quota: int, settings: SdarSettings) -> list[int]:
    """Indices into the open positions, left to right; confidence [N]."""
    quota = min(quota, len(confidence))
    if settings.remasking == "sequential":
        return list(range(quota))
    if settings.remasking == "low_confidence_dynamic":
        sure = (confidence > settings.threshold).nonzero()[:, 0].tolist()
        if len(sure) >= quota:
            return sure
    return torch.topk(confidence, quota).indices.tolist()


def surplus(canvas: Canvas, block: range, quota: int) -> list[int]:
    """Committed positions of the answer that a top-k over the block takes along when its quota exceeds what is open."""
    committed = torch.tensor([canvas.tokens[position] != canvas.mask for position in block])
    best = torch.topk(torch.where(committed, -torch.inf, 1.0), quota).indices.tolist()
    return [block[index] for index in sorted(best) if committed[index] and block[index] >= canvas.prompt]


def start(canvas: Canvas, settings: SdarSettings, spec: ModelSpec) -> Program:
    """Block after block; a finished one is final."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    schedule = quotas(blocks.length, settings.steps or blocks.length)
    for block in blocks.answer():
        for quota in schedule:
            if not canvas.wanting(block):
                break
            positions = canvas.open(block)
            wanted = [*positions, *(surplus(canvas, block, quota) if settings.rewrite else ())]
            answer = yield from blocks.forward(block, wanted, ask=ask(canvas, wanted))
            sure = answer.coarse_probability()[: len(positions)]
            for index in [*chosen(sure, quota, settings), *range(len(positions), len(wanted))]:
                canvas.write(wanted[index], answer.tokens[index], answer.source(index))
        canvas.release(block.stop)


def same_text(settings: SdarSettings, config: SamplingConfig, spec: ModelSpec) -> Hashable:
    """Modes that verify give the text of static remasking, too."""
    static = settings.remasking == "low_confidence_static" and not settings.rewrite
    return slow_text(config, spec, settings.block_length, settings.steps) if static else None


SAMPLER = Sampler(
    name="sdar",
    summary="blocks aligned to position 0, dynamic or static low-confidence remasking",
    source="JetAstra/SDAR c2041a8 generate.py (arXiv 2510.06303)",
    settings=SdarSettings,
    start=start,
    unheld=None,
    keeps_blocks=True,
    suffix=True,
    counts=Counts.BLOCK,
    same_text=same_text,
)
