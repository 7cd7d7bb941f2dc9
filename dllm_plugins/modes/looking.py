"""What a model says of a token of its own answer with both sides in view: the token itself is left out.

Every view also writes from left to right, and knows what it may still cache when a text is looked at.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import UNLIMITED
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.infilling import weighed
from dllm_plugins.processes.base import NoiseProcess

#: Tokens behind a position that are in view, where they have to be forwarded for each position.
IN_VIEW = 16
#: Positions that are looked at in one pass there.
_TOGETHER = 16
#: Where the block sees itself, one position of so many is masked in a pass.
STRIDE = 4


class View(Protocol):
    """How a model writes on, and what it says of a position whose token it does not see."""

    def write(self, position: int) -> Dialogue[Answer]:
        """The next token, drawn as in autoregressive decoding; everything before `position` stands on the canvas."""

    def look(self, block: range, positions: Sequence[int], kind: str) -> Dialogue[Tensor]:
        """Logits [N, V] of positions of a block, each without its own token; open ones are not seen either.

        :param kind: of the passes.
        """


def _next(canvas: Canvas, position: int) -> Ask:
    row = canvas.row
    return Ask(draws=lambda: [row.draw(position)], logits=row.wants_logits, positions=[position], onward=True)


class BesideClean:
    """Models whose clean rows are an autoregressive base, and whose open rows denoise: the default model.

    A position is weighed as the frontier of a gap is (:func:`~dllm_plugins.modes.infilling.weighed`): the clean row on
    its left tells the base's word, two open rows tell what seeing the tokens behind it makes of that. Those are
    forwarded anew for each position, since clean rows would have seen its token. The last token before the block is
    not in the prefix: an open row stands in its place.
    """

    def __init__(self, canvas: Canvas, process: NoiseProcess, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.process = process
        self.spec = spec

    def write(self, position: int) -> Dialogue[Answer]:
        """See :class:`View`."""
        row, canvas = self.canvas.row, self.canvas
        new = canvas.tokens[row.frozen : position]
        segment = Segment(row.handle, new, range(row.frozen, position), wanted=(len(new) - 1,))
        kind = "predict" if position > row.prompt else "prefill"
        [answer] = yield Pass((segment,), kind, freeze=len(new), asks=(_next(canvas, position),))
        return answer

    def look(self, block: range, positions: Sequence[int], kind: str) -> Dialogue[Tensor]:
        """See :class:`View`."""
        found: list[Tensor] = []
        for start in range(0, len(positions), _TOGETHER):
            found += yield from self._look(block, positions[start : start + _TOGETHER], kind)
        return torch.cat(found)

    def _look(self, block: range, positions: Sequence[int], kind: str) -> Dialogue[list[Tensor]]:
        canvas, row, begin = self.canvas, self.canvas.row, block.start - 1
        last, known = max(positions), canvas.tokens[begin:]
        clean = range(begin, last)
        segments = [
            Segment(row.handle, known[: len(clean)], clean, wanted=[position - 1 - begin for position in positions])
        ]
        asks = [UNLIMITED]
        for position in positions:
            behind = [place for place in range(position + 1, block.stop) if canvas.tokens[place] != canvas.mask]
            behind, left = behind[:IN_VIEW], self._left(position)
            before = ((0, position - 1 - begin),) if position - 1 > begin else ()
            seen = ((0, position - begin),)
            if behind:
                segments.append(Segment(row.handle, [canvas.tokens[place] for place in behind], behind, behind=seen))
                before_and_behind = (*before, (len(segments) - 1, len(behind)))
                for sees in (before_and_behind, before):
                    noise = self.process.noised(1, self.spec)
                    segments.append(canvas.noisy(noise, [position - 1], sees))
                    asks.append(replace(UNLIMITED, of=len(segments) - 1, left=left))
        clean_said, *others = yield Pass(tuple(segments), kind, rewind=begin, asks=tuple(asks))
        rest, said = iter(others), []
        for index, position in enumerate(positions):
            logits = clean_said.logits[index : index + 1]
            if any(canvas.tokens[place] != canvas.mask for place in range(position + 1, block.stop)):
                logits = weighed(logits, next(rest).logits, next(rest).logits)
            said.append(logits.float())
        return said

    def _left(self, position: int) -> Tensor:
        tokens = self.canvas.tokens
        return torch.tensor([[tokens[position - 1], tokens[position - 2] if position > 1 else -1]])


class InBlock:
    """Models that write causally, and see a block both ways behind a causal prefix: Nemotron-Labs-Diffusion.

    One position of every :data:`STRIDE` is masked in a pass, so that its neighbours are in view.
    """

    def __init__(self, canvas: Canvas, _process: NoiseProcess, _spec: ModelSpec) -> None:
        self.canvas = canvas

    def write(self, position: int) -> Dialogue[Answer]:
        """See :class:`View`."""
        begin = self.canvas.row.frozen
        segment = self.canvas.part(range(begin, position), [position - 1], causal=True)
        kind = "predict" if position > self.canvas.prompt else "prefill"
        ask = _next(self.canvas, position)
        [answer] = yield Pass((segment,), kind, freeze=position - begin, asks=(ask,))
        return answer

    def look(self, block: range, positions: Sequence[int], kind: str) -> Dialogue[Tensor]:
        """See :class:`View`."""
        found: dict[int, Tensor] = {}
        for first in range(STRIDE):
            own = [position for position in positions if position % STRIDE == first]
            if own:
                tokens = list(self.canvas.tokens)
                for position in own:
                    tokens[position] = self.canvas.mask
                part = self.canvas.part(block, own, tokens=tokens)
                ask = replace(LOGITS, positions=())
                [answer] = yield Pass((part,), kind, rewind=block.start, asks=(ask,))
                found |= dict(zip(own, answer.logits.float(), strict=True))
        return torch.stack([found[position] for position in positions])
