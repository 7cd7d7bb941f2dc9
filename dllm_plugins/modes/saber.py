"""Saber: reveal what is surer than the text so far, take back what lost most (arXiv 2510.18165).

Source: zhaoyMa/Saber 2f061e2 `decoding.py`. The threshold of a pass is the mean confidence at
which the text so far was revealed; at least `n` positions are revealed all the same. Then
those of the text open again whose confidence fell most since the pass before, fewer than were
revealed. A position's confidence is the probability of what the model would draw there now.
Earlier blocks may open again, too, so nothing is final before the end.

Where fewer than `n` positions are open, the reference's top-k goes on to committed positions
and to later blocks, which have no confidence at all; ours takes what is open.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.prediction import Prediction
from dllm_plugins.prediction import predict
from dllm_plugins.prediction import probability_of


class SaberSettings(Settings):
    """Options of Saber."""

    block_length: int | None = Field(None, description="positions denoised together")
    n: int = Field(2, ge=1, description="fewest positions a pass reveals; half of it, the fewest it takes back")


def revealed(confidence: Tensor, history: Sequence[float], least: int) -> list[int]:
    """Which open positions a pass reveals; confidence [N].

    :param history: the confidence of each token that was revealed so far, as it was then.
    """
    threshold = torch.tensor(history).mean() if history else 1.0
    found = (confidence.float() > threshold).nonzero()[:, 0]
    if len(found) < least:
        found = torch.topk(confidence, min(least, len(confidence))).indices
    chosen: list[int] = found.tolist()
    return chosen


def taken_back(change: Tensor, count: int, least: int) -> list[int]:
    """Which positions open again: an eighth of the `count` just revealed, those that lost most; change [N]."""
    share = min(max(least // 2, (count + 7) // 8), count - 1)
    chosen: list[int] = torch.topk(change, share, largest=False).indices.tolist()
    return chosen


class Memory:
    """How sure the model was of the text so far, and is of each position.

    :param at_reveal: by position, when it was last revealed; also of those taken back.
    :param before: by position, at the pass before.
    """

    def __init__(self) -> None:
        self.at_reveal: dict[int, float] = {}
        self.before: dict[int, float] = {}

    def history(self) -> list[float]:
        """The confidence of every revealed token, left to right."""
        return [self.at_reveal[position] for position in sorted(self.at_reveal)]

    def change(self, positions: Sequence[int], sure: Tensor) -> Tensor:
        """By how much each confidence [N] differs from the one before; and remember it."""
        earlier = torch.tensor([self.before.get(position, 0.0) for position in positions], dtype=sure.dtype)
        self.before |= dict(zip(positions, sure.tolist(), strict=True))
        return sure - earlier


def start(canvas: Canvas, settings: SaberSettings, spec: ModelSpec) -> Program:
    """Block after block; the text is final as a whole."""
    view = WholeCanvas(canvas, spec)
    memory = Memory()
    for block in blocks_of(canvas, settings.block_length or spec.block_length):
        known = canvas.free(range(canvas.prompt, block.stop))
        if block.start > canvas.prompt:
            # Earlier passes had no confidence here, so nothing of this block can have lost any.
            memory.before |= dict.fromkeys(block, float("-inf"))
        while canvas.open(known):
            logits = (yield from view.forward(known, block)).logits
            drawn = predict(canvas.drawable(logits), canvas.row.canvas_draws(known))
            sure = probability_of(logits, drawn.token).cpu()
            change = memory.change(known, sure)
            count = reveal(canvas, settings, memory, known, drawn, sure)
            if canvas.open(known):
                take_back(canvas, settings, known, change, count)
    canvas.release(canvas.end)


def reveal(
    canvas: Canvas, settings: SaberSettings, memory: Memory, known: Sequence[int], drawn: Prediction, sure: Tensor
) -> int:
    """Write what a pass reveals, and say how much that was; `sure` [len(known)]."""
    index = [number for number, position in enumerate(known) if canvas.tokens[position] == canvas.mask]
    chosen = [index[number] for number in revealed(sure[index], memory.history(), settings.n)]
    for number in chosen:
        memory.at_reveal[known[number]] = float(sure[number])
        canvas.write(known[number], int(drawn.token[number]), drawn.logits[number])
    return len(chosen)


def take_back(canvas: Canvas, settings: SaberSettings, known: Sequence[int], change: Tensor, count: int) -> None:
    """Open again what lost most; `change` [len(known)]."""
    index = [number for number, position in enumerate(known) if canvas.tokens[position] != canvas.mask]
    for number in taken_back(change[index], count, settings.n):
        canvas.write(known[index[number]], canvas.mask)


SAMPLER = Sampler(
    name="saber",
    summary="reveals what is surer than the text so far was; takes back what lost most confidence",
    source="zhaoyMa/Saber 2f061e2 decoding.py (arXiv 2510.18165)",
    settings=SaberSettings,
    start=start,
    unheld=None,
    suffix=True,
    attention=frozenset({"bidirectional"}),
)
