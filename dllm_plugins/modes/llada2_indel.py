"""LLaDA2.2's sampler: edits that also delete and insert (JointThresholdInDel).

Source: sgl-project/sglang pull request 31773 `joint_threshold_indel.py`, for one row.
Drawing the delete id removes a position; drawing the split id puts an open one in front
of the token that stood there. The block is cut or filled up to its length with new open
positions. Those of the beginning are told from the ones that edits made: each pass
commits more than were made, so a block ends. The reference forwards a block once more
behind its final pass to store it; here the next block's first pass does that.
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
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.choosing import spread
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import distribution
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import without

NEEDS = ("delete_token_id", "split_token_id")
#: A position: its token, whether it was open at the beginning, and what the token was drawn from.
Place = tuple[int, bool, Tensor | None]


class IndelSettings(Settings):
    """Options of LLaDA2.2's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    threshold: float = Field(0.5, description="commit all open positions that are more probable")
    edit_threshold: float = Field(
        0.0, ge=0.0, le=1.0, description="overwrite committed positions by another token that is more probable"
    )
    max_post_edit_steps: int = Field(
        16, ge=0, description="passes without open positions of the beginning before the final one"
    )


class Editing:
    """One block under way.

    :param span: all of it; `positions` are those behind the prompt.
    """

    def __init__(self, canvas: Canvas, span: range, settings: IndelSettings, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.span = span
        self.positions = positions = range(max(span.start, canvas.prompt), span.stop)
        self.settings = settings
        self.delete, self.split = (spec.ids[key] for key in NEEDS)
        self.block: list[Place] = [(canvas.mask, True, None)] * len(positions)
        self.final = self.done = False
        self._left = settings.max_post_edit_steps
        self._passes = len(span) + settings.max_post_edit_steps
        self._seen: set[tuple[int, ...]] = set()
        self._drawn: list[set[int]] = [set() for _ in positions]

    def begin(self) -> str:
        """Count a pass; the kind it counts as."""
        self._passes -= 1
        self._left -= not any(first and token == self.canvas.mask for token, first, _ in self.block)
        self.final = self._left < 0 or self._passes < 0
        return "final" if self.final else "predict"

    def read(self, logits: Tensor) -> None:
        """Edit the block; logits [len(positions), V]."""
        draws = self.canvas.row.canvas_draws(self.positions)
        odds, token = distribution(logits, draws), predict(logits, draws).token
        old = torch.tensor([item[0] for item in self.block], device=logits.device)
        unfilled = old == self.canvas.mask
        first = unfilled & torch.tensor([item[1] for item in self.block], device=logits.device)
        if not self.final:
            token = torch.where(first, predict(without(logits, [self.canvas.mask]), draws).token, token)
        sure = odds.gather(1, token[:, None])[:, 0]
        committed = self._committed(unfilled, first, sure)
        write = committed | (~unfilled & (token != old) & (sure > self.settings.edit_threshold))
        if not write.any():
            self.done = True
            return
        if self.final:
            token = predict(without(logits, [self.canvas.mask, self.delete, self.split]), draws).token
        elif tuple(old.tolist()) in self._seen:
            token = self._varied(token, sure, write & (token != old), first, logits, draws)
        self._seen.add(tuple(old.tolist()))
        self._write(token.tolist(), write.tolist(), logits)
        self.done = self.final

    def _committed(self, unfilled: Tensor, first: Tensor, sure: Tensor) -> Tensor:
        """Which open positions this pass commits; bool [N]."""
        if self.final or not first.any():
            return unfilled
        need = 1 + int(unfilled.sum()) - int(first.sum())
        high = unfilled & (sure > self.settings.threshold)
        if int(high.sum()) >= need:
            return high
        among = spread(sure.masked_fill(~unfilled, -torch.inf), self.positions, self.span)
        best = torch.topk(among, need).indices - (self.positions.start - self.span.start)
        return torch.zeros_like(unfilled).index_fill(0, best, True)

    def _varied(
        self, token: Tensor, sure: Tensor, changing: Tensor, first: Tensor, logits: Tensor, draws: Sequence[Draw]
    ) -> Tensor:
        """A block that was there before: the least probable change becomes one that was not made yet."""
        if not changing.any():
            return token
        index = int(torch.where(changing, sure, torch.inf).argmin())
        tried = self._drawn[index] | ({self.canvas.mask} if first[index] else set())
        other = predict(without(logits[index : index + 1], sorted(tried)), draws[index : index + 1]).token
        return token.index_copy(0, torch.tensor([index], device=token.device), other)

    def _write(self, token: Sequence[int], write: Sequence[bool], logits: Tensor) -> None:
        """Replace, delete and insert; new open positions are not those of the beginning."""
        edited: list[Place] = []
        new: Place = (self.canvas.mask, False, None)
        for index, position in enumerate(self.block):
            if not write[index]:
                edited.append(position)
                continue
            self._drawn[index].add(token[index])
            if token[index] == self.split:
                edited += [new, position]
            elif token[index] != self.delete:
                edited.append((token[index], position[1], logits[index]))
        edited += [new] * (len(self.block) - len(edited))
        self.block = edited[: len(self.block)]
        for where, (item, _, source) in zip(self.positions, self.block, strict=True):
            self.canvas.write(where, item, source)


def fit(_settings: IndelSettings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse checkpoints that cannot say delete and split.

    :raises OptionError: naming the id that config.json lacks.
    """
    for key in NEEDS:
        if key not in spec.ids:
            raise OptionError(
                f"mode {config.mode!r} needs {key}, which config.json of {spec.name} does not name; choose llada2.0 or "
                f"llada2.1"
            )


def start(canvas: Canvas, settings: IndelSettings, spec: ModelSpec) -> Program:
    """Block after block; the engine ends the row behind one that holds an end of text."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length)
    for block in blocks.answer():
        editing = Editing(canvas, block, settings, spec)
        while not editing.done:
            kind = editing.begin()
            logits = (yield from blocks.forward(block, editing.positions, kind)).logits
            editing.read(logits)
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="llada2.2",
    summary="blocks aligned to position 0, edits that also delete and insert",
    source="sgl-project/sglang pull request 31773, joint_threshold_indel.py",
    settings=IndelSettings,
    start=start,
    unheld="its answers grow and shrink while they are written",
    fit=fit,
)
