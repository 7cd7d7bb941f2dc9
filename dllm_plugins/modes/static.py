"""Slow static decoding as a function: from a state and what a model says about it to the next state.

Block after block, a fixed number of the most probable open positions a pass. LLaDA's
sampler with rule quota and SDAR's low_confidence_static are this loop, so what is verified
against it (modes/freedave.py) equals them token for token.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.choosing import quotas
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import probability_of

#: Logits [V] by position.
LogitsAt = Mapping[int, Tensor]


@dataclass(frozen=True, slots=True)
class CanvasState:
    """A canvas on the way.

    :param tokens: all of it.
    :param block: number of the block that is denoised now; the number of blocks at the end.
    :param inner: slow passes spent on that block.
    :param step: slow passes altogether, which key the noise.
    """

    tokens: tuple[int, ...]
    block: int
    inner: int = 0
    step: int = 0


@dataclass(frozen=True, slots=True)
class Write:
    """One token a step commits, and the logits [V] it was drawn from."""

    position: int
    token: int
    source: Tensor


class StaticDecoding:
    """The slow sampler of one row.

    :param cached: in blocks aligned to position 0, as for models with an exact cache; else
        aligned to the answer's beginning.
    """

    def __init__(self, canvas: Canvas, spec: ModelSpec, block_length: int | None, steps: int | None) -> None:
        self.canvas = canvas
        self.cached = spec.cache == "exact"
        length = block_length or spec.block_length
        self.blocks = Blocks(canvas, length).answer() if self.cached else blocks_of(canvas, length)
        self.length, self._steps = length, steps

    def first(self) -> CanvasState:
        """Before the first pass."""
        return CanvasState(tuple(self.canvas.tokens), 0)

    def done(self, state: CanvasState) -> bool:
        """Whether nothing is left to do."""
        return state.block == len(self.blocks)

    def open(self, state: CanvasState) -> list[int]:
        """Open positions of the block that is denoised now: what the slow sampler asks for in its next pass."""
        return [position for position in self.blocks[state.block] if state.tokens[position] == self.canvas.mask]

    def quota(self, state: CanvasState) -> int:
        """How many positions the next pass commits, if that many are open."""
        length = self.length if self.cached else len(self.blocks[state.block])
        steps = self._steps or length
        return max(1, quotas(length, steps)[state.inner % steps])

    def step(self, state: CanvasState, logits_at: LogitsAt, skip: int = 0) -> tuple[CanvasState, list[Write]] | None:
        """The next state and what it writes; None if the model was not asked about this block, or for want of ranks.

        :param skip: commit another position than the last of the chosen: this many ranks further down.
        """
        positions = self.open(state)
        if any(position not in logits_at for position in positions):
            return None
        logits = torch.stack([logits_at[position] for position in positions])
        draws = self.canvas.row.canvas_draws(positions, state.step)
        token = predict(self.canvas.drawable(logits), draws).token
        sure = probability_of(logits, token).cpu()
        quota = min(self.quota(state), len(positions))
        if quota + skip > len(positions):
            return None
        ranked = self._ranked(sure, quota + skip)
        chosen = [*ranked[: quota - 1], ranked[-1]]
        writes = [Write(positions[index], int(token[index]), logits[index]) for index in chosen]
        return self._after(state, writes), writes

    def _ranked(self, sure: Tensor, count: int) -> Sequence[int]:
        """The most probable positions first; ties fall as in the sampler that this stands for."""
        if self.cached:
            ranked: list[int] = torch.topk(sure, count).indices.tolist()
        else:
            ranked = sure.argsort(descending=True, stable=True)[:count].tolist()
        return ranked

    def _after(self, state: CanvasState, writes: Sequence[Write]) -> CanvasState:
        tokens = list(state.tokens)
        for write in writes:
            tokens[write.position] = write.token
        block, inner = state.block, state.inner + 1
        while block < len(self.blocks) and self._finished(tokens, self.blocks[block]):
            block, inner = block + 1, 0
        return CanvasState(tuple(tokens), block, inner, state.step + 1)

    def _finished(self, tokens: Sequence[int], block: range) -> bool:
        """Whether the answer's part of a block is committed; what lies behind the answer may stay open."""
        return self.canvas.mask not in tokens[block.start : min(block.stop, self.canvas.end)]
