"""Cached-prefix block sampling for models whose finished blocks never change.

Only the newest block is denoised. A finished block, and the prompt before the first one,
freezes in the same pass that denoises the next block for the first time, so no pass is
spent on the cache alone. Exact: under a block-causal or causal mask nothing frozen sees
anything behind it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Message
from dllm_plugins.messages import message

#: The longest blocks that may be asked for.
LONGEST = 1024


class Blocks:
    """One canvas in blocks of `length` positions.

    :param anchor: a position where a block begins; blocks are aligned to it both ways.
    :param context: what finished text sees: its own and earlier blocks, or what is left of it.
    :param shift: 1 if the row at p - 1 predicts position p; a block's first position is then
        predicted by finished text, which does not see the block.
    """

    def __init__(
        self,
        canvas: Canvas,
        length: int,
        *,
        anchor: int = 0,
        context: Literal["blocks", "causal"] = "blocks",
        shift: int = 0,
    ) -> None:
        self.canvas = canvas
        self.length = length
        self.anchor = anchor
        self.context = context
        self.shift = shift
        self.frozen = self.taken_over = canvas.row.frozen
        self._last = torch.empty(0)

    def number(self, position: int) -> int:
        """The block of a position."""
        return (position - self.anchor) // self.length

    def answer(self, *, whole: bool = True) -> list[range]:
        """The blocks that hold the answer; the first may begin in the prompt, the last is filled up if `whole`.

        :raises OptionError: for a gap that does not see what stands behind it, which lies in another block.
        """
        self._check_gaps()
        first, last = self.number(self.canvas.prompt), self.number(self.canvas.end - 1)
        begins = [self.anchor + number * self.length for number in range(first, last + 1)]
        if whole:
            self.canvas.tokens += [self.canvas.mask] * (begins[-1] + self.length - len(self.canvas.tokens))
        return [range(max(begin, 0), min(begin + self.length, len(self.canvas.tokens))) for begin in begins]

    def _check_gaps(self) -> None:
        for start, stop in self._gaps():
            if stop < len(self.canvas.tokens) and self.number(start) != self.number(stop):
                raise OptionError(
                    message(
                        "the gap of {} tokens at position {} does not see what follows it: blocks of {} positions are "
                        "denoised one after another, and the next is not known yet; {}",
                        stop - start,
                        start,
                        self.length,
                        self._remedy(),
                    )
                )

    def _gaps(self) -> list[tuple[int, int]]:
        """First position of each gap, and the first behind it."""
        return [(gap.start, gap.stop) for gap in self.canvas.row.gaps] or [(self.canvas.prompt, self.canvas.end)]

    def _remedy(self) -> Message:
        """The shortest blocks in which every gap sees what follows it."""
        behind = [(start, stop) for start, stop in self._gaps() if stop < len(self.canvas.tokens)]
        for length in range(self.length + 1, LONGEST + 1):
            if all((start - self.anchor) // length == (stop - self.anchor) // length for start, stop in behind):
                return message(
                    "give {block_length}={}, or make the gap shorter (a model is best at lengths it was trained on)",
                    length,
                )
        return message("make the gap shorter, or choose a model that sees the whole text")

    def forward(
        self, block: range, positions: Sequence[int], kind: str = "predict", ask: Ask = LOGITS
    ) -> Dialogue[Answer]:
        """What is said at ascending positions of `block`; everything before it is frozen by the way.

        :param ask: what is wanted of all `positions`; logits only for shifted models, two segments of which are wanted.
        """
        count = block.start - self.frozen
        own = [position for position in positions if position - self.shift >= block.start]
        wanted, ask = [position - self.shift for position in own], replace(ask, positions=own)
        if count:
            before = range(self.frozen, block.start)
            groups = None if self.context == "causal" else [self.number(position) for position in before]
            last = [block.start - 1] if self.shift else []
            context = self.canvas.part(before, last, causal=True, groups=groups)
            newest = self.canvas.part(block, wanted, behind=((0, count),))
            kind = kind if self.frozen > self.taken_over else "prefill"
            self.frozen = block.start
            first = replace(LOGITS, positions=[block.start])
            asks = (first, replace(ask, of=1)) if self.shift else (replace(ask, of=1),)
            *last_before, answer = yield Pass((context, newest), kind, freeze=count, asks=asks)
            self._last = last_before[0].logits if last_before else self._last
        else:
            [answer] = yield Pass((self.canvas.part(block, wanted),), kind, asks=(ask,))
        return answer if len(wanted) == len(positions) else of_logits(torch.cat([self._last, answer.logits]))
