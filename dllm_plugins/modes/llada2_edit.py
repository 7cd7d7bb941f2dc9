"""LLaDA2.1's sampler: committed tokens of the newest block are edited until they agree (arXiv 2512.15745).

Source: `LLaDA2MoeModelLM.generate` of the 2.1 checkpoints (copy in ZHZisZZ/dllm ca176752).
A pass commits open positions and overwrites committed ones of its block at once; the prompt
never changes. A finished block is final, so a cached prefix is exact here too.
"""

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.llada2 import chosen
from dllm_plugins.modes.llada2 import draw
from dllm_plugins.modes.llada2 import first_stop


class Llada2EditSettings(Settings):
    """Options of LLaDA2.1's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    threshold: float = Field(0.95, description="commit all open positions that are more probable")
    num_to_transfer: int = Field(1, ge=1, description="commit at least so many a pass")
    editing_threshold: float = Field(
        0.9, ge=0.0, le=1.0, description="overwrite committed positions by another token that is more probable"
    )
    max_post_steps: int = Field(16, ge=0, description="passes over a block that has nothing open any more")
    eos_early_stop: bool = Field(
        default=True, description="stop behind the block that holds the end of text; the answer is the same"
    )


def edits(canvas: Canvas, positions: range, token: Tensor, sure: Tensor, threshold: float) -> list[int]:
    """Committed positions whose token is another one now and more probable than the threshold."""
    old = torch.tensor([canvas.tokens[position] for position in positions], device=token.device)
    changed = (old != canvas.mask) & (old != token) & (sure > threshold)
    return [positions[index] for index in changed.nonzero()[:, 0].tolist()]


def start(canvas: Canvas, settings: Llada2EditSettings, spec: ModelSpec) -> Program:
    """Block after block, each until it stays as it is or has been edited long enough."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    for block in blocks.answer():
        positions, left = range(max(block.start, canvas.prompt), block.stop), settings.max_post_steps
        while True:
            unfilled = canvas.open(positions)
            left -= not unfilled
            if left < 0:
                break
            logits = (yield from blocks.forward(block, positions)).logits
            token, sure = draw(canvas, positions, logits)
            written = changed = edits(canvas, positions, token, sure, settings.editing_threshold)
            if unfilled:
                new = sure[[position - positions.start for position in unfilled]]
                written = changed + chosen(new, unfilled, block, settings.num_to_transfer, settings.threshold)
            for position in written:
                index = position - positions.start
                canvas.write(position, int(token[index]), logits[index])
            if not unfilled and not changed:
                break
        stop = None if settings.eos_early_stop else first_stop(canvas)
        canvas.release(block.stop if stop is None else stop)
    canvas.release(canvas.end)


SAMPLER = Sampler(
    name="llada2.1",
    summary="blocks aligned to position 0, committed tokens are edited until they agree",
    source="LLaDA2MoeModelLM.generate of the 2.1 checkpoints, in ZHZisZZ/dllm ca176752 (arXiv 2512.15745)",
    settings=Llada2EditSettings,
    start=start,
    unheld=None,
)
