"""LLaDA2.0's sampler (arXiv 2512.15745): blocks of 32 from position 0, a threshold with a floor.

Source: `LLaDA2MoeModelLM.generate` of the 2.0 checkpoints (copy in ZHZisZZ/dllm ca176752).
The floor of a pass comes from the block length, not from what is open. The reference
forwards everything in every pass; under its block-causal mask a cached prefix is the same.

Its early stop looks for the end of text from position 0 on, so a prompt that holds one
gives it an empty answer; ours looks at the answer only. `minimal_topk` above the answer's
length leaves it no pass at all; ours makes one.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.choosing import quotas
from dllm_plugins.modes.choosing import spread
from dllm_plugins.modes.drawing import draw_tokens
from dllm_plugins.modes.steps import Counts
from dllm_plugins.prediction import distribution

#: What the reference spreads a block over where nobody says it.
MOST_STEPS = 32
EARLY = "stop as soon as nothing before the end of text is open; the answer is the same"


class Llada2Settings(Settings):
    """Options of LLaDA2.0's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    steps: int | None = Field(
        None, description=f"passes a block is spread over at most; its length if not given, {MOST_STEPS} at most"
    )
    threshold: float = Field(0.95, description="commit all that are more probable")
    minimal_topk: int = Field(1, ge=1, description="no more passes a block than the answer's length divided by this")
    eos_early_stop: bool = Field(default=True, description=EARLY)


def draw(canvas: Canvas, positions: Sequence[int], logits: Tensor, *, rounded: bool = False) -> tuple[Tensor, Tensor]:
    """Tokens [N] and the probability [N] each was drawn with; never the mask. Logits [N, V].

    :param rounded: greedy tokens have the largest probability: two logits may round to one.
    """
    draws = canvas.row.canvas_draws(positions)
    odds = distribution(logits, draws)
    source = odds if rounded and canvas.row.config.temperature == 0 else logits
    token = draw_tokens(canvas, source, draws)
    return token, odds.gather(1, token[:, None])[:, 0]


def chosen(sure: Tensor, positions: Sequence[int], block: range, quota: int, threshold: float) -> list[int]:
    """Open positions that are above the threshold, or else the `quota` most probable; sure [len(positions)]."""
    among = spread(sure, positions, block)
    found = (among > threshold).nonzero()[:, 0]
    if len(found) < quota:
        found = torch.topk(among, min(quota, len(positions))).indices
    return [block.start + index for index in found.tolist()]


def first_stop(canvas: Canvas) -> int | None:
    """Where the answer holds its first end of text, whatever is open before it."""
    answer = enumerate(canvas.tokens[canvas.prompt :], canvas.prompt)
    return next((position for position, token in answer if token in canvas.row.stop_ids), None)


def most_steps(answer: int, length: int, settings: Llada2Settings) -> int:
    """How many passes a block of `length` positions may be spread over, `answer` tokens being asked for."""
    return max(1, min(length, answer // settings.minimal_topk))


def fit(settings: Llada2Settings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse more passes of a block than `minimal_topk` leaves.

    :raises OptionError: naming the value and those that can be met.
    """
    most = most_steps(config.max_new_tokens, settings.block_length or spec.block_length, settings)
    if settings.steps is not None and settings.steps > most:
        raise OptionError(
            message(
                "{steps}={} cannot be met: {max_new_tokens}={} and minimal_topk={} leave a block {} passes at most; "
                "give from 1 to {}",
                settings.steps,
                config.max_new_tokens,
                settings.minimal_topk,
                most,
                most,
            )
        )


def start(canvas: Canvas, settings: Llada2Settings, spec: ModelSpec) -> Program:
    """Block after block; the engine ends the row behind one that holds an end of text."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    fitting = most_steps(canvas.row.requested, blocks.length, settings)
    schedule = quotas(blocks.length, settings.steps or min(MOST_STEPS, fitting))
    for block in blocks.answer():
        for quota in schedule:
            positions = canvas.open(block)
            if not positions:
                break
            logits = (yield from blocks.forward(block, positions)).logits
            token, sure = draw(canvas, positions, logits, rounded=True)
            written = chosen(sure, positions, block, quota, settings.threshold)
            for position in written:
                index = positions.index(position)
                canvas.write(position, int(token[index]), logits[index])
            ended = any(canvas.tokens[position] in canvas.row.stop_ids for position in written)
            stop = first_stop(canvas) if ended and settings.eos_early_stop and not canvas.given else None
            if stop is not None and not canvas.open(range(canvas.prompt, stop)):
                canvas.release(stop + 1)
                return
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="llada2.0",
    summary="blocks aligned to position 0, a threshold with a floor a pass",
    source="LLaDA2MoeModelLM.generate of the 2.0 checkpoints, in ZHZisZZ/dllm ca176752 (arXiv 2512.15745)",
    settings=Llada2Settings,
    start=start,
    unheld=None,
    keeps_blocks=True,
    suffix=True,
    counts=Counts.BLOCK,
    fit=fit,
)
