"""SDAR's block diffusion (arXiv 2510.06303), for the dense and the MoE body.

Source: JetAstra/SDAR c2041a8 `generate.py`. The quota of a pass comes from the block
length, not from what is open, so a block that begins in the prompt ends early. The
reference has no temperature 0: greedy here is the argmax with its own probability as
confidence. Where its top-k would write over prompt tokens, ours takes what is open.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.prediction import predict
from dllm_plugins.samplers.base import Program
from dllm_plugins.samplers.base import Sampler
from dllm_plugins.samplers.base import Settings
from dllm_plugins.samplers.blocks import Blocks
from dllm_plugins.samplers.blocks import quotas
from dllm_plugins.samplers.canvas import Canvas


class SdarSettings(Settings):
    """Options of SDAR's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    steps: int | None = Field(None, description="passes a block is spread over; its length if not given")
    threshold: float = Field(0.85, description="low_confidence_dynamic: settle all that are more probable")
    remasking: Literal["low_confidence_dynamic", "low_confidence_static", "sequential"] = Field(
        "low_confidence_dynamic", description="which open positions a pass settles"
    )


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


def start(canvas: Canvas, settings: SdarSettings, spec: ModelSpec) -> Program:
    """Block after block; a finished one is final."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    schedule = quotas(blocks.length, settings.steps or blocks.length)
    for block in blocks.answer():
        for quota in schedule:
            if not canvas.wanting(block):
                break
            places = canvas.open(block)
            logits = yield from blocks.look(block, places)
            drawn = predict(canvas.drawable(logits), [canvas.row.canvas_draw(place) for place in places])
            sure = torch.softmax(logits, dim=-1).gather(1, drawn.token[:, None])[:, 0]
            for index in chosen(sure, quota, settings):
                canvas.write(places[index], int(drawn.token[index]), logits[index])
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="sdar",
    summary="blocks aligned to position 0, dynamic or static low-confidence remasking",
    source="JetAstra/SDAR c2041a8 generate.py (arXiv 2510.06303)",
    settings=SdarSettings,
    start=start,
)
