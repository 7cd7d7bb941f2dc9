"""dllm's sampler for block diffusion models (BD3LM): Tiny-A2D.

Source: ZHZisZZ/dllm ca176752 `dllm/core/samplers/bd3lm.py`. Blocks are aligned to the end
of the prompt; text before a block is seen block by block, too. The reference encodes it
again for every block; here it freezes once. It fills prompts up on the left and then takes
every token that looks like its filling for filling, also inside a prompt or an answer;
ours fills up nothing, so such a token is a token.
"""

from collections.abc import Generator
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.samplers.base import Asked
from dllm_plugins.samplers.base import Pass
from dllm_plugins.samplers.base import Program
from dllm_plugins.samplers.base import Sampler
from dllm_plugins.samplers.blocks import Blocks
from dllm_plugins.samplers.canvas import Canvas
from dllm_plugins.samplers.mdlm import TransferSettings
from dllm_plugins.samplers.mdlm import asked_of
from dllm_plugins.samplers.mdlm import blind
from dllm_plugins.samplers.mdlm import settle
from dllm_plugins.samplers.mdlm import transfers
from dllm_plugins.samplers.steps import Counts


class _Look:
    """Looks at the newest block: as it is, shifted by one, or with guidance."""

    def __init__(self, blocks: Blocks, spec: ModelSpec, settings: TransferSettings) -> None:
        self.blocks = blocks
        self.canvas = blocks.canvas
        self.shift = int(spec.shifted or settings.right_shift_logits)
        self.settings = settings
        self._last = torch.empty(0)

    def asked(self, places: list[int]) -> Asked | None:
        """What :meth:`look` may be told instead of logits; two segments of shifted models are wanted."""
        return None if self.shift else asked_of(self.canvas, places, self.settings)

    def look(self, block: range, places: Sequence[int], asked: Asked | None) -> Generator[Pass, list[Tensor], Tensor]:
        """Logits [len(places), V] at positions of `block`."""
        if self.settings.guidance is not None:
            return (yield from self._guided(block, places, self.settings.guidance))
        if self.shift:
            return (yield from self._shifted(block, places))
        return (yield from self.blocks.look(block, places, asked=asked))

    def _part(self, places: range, wanted: Sequence[int]) -> Segment:
        """Finished text, each token of which sees its own and earlier blocks."""
        return self.canvas.part(places, wanted, groups=[self.blocks.number(place) for place in places])

    def _guided(self, block: range, places: Sequence[int], guidance: float) -> Generator[Pass, list[Tensor], Tensor]:
        """Both ways from the beginning: a row has one prefix, and here they differ."""
        whole = self._part(range(block.stop), [place - self.shift for place in places])
        conditional, free = yield Pass((whole, blind(self.canvas, whole, self.settings.cfg_keep_tokens)))
        return free + (guidance + 1) * (conditional - free)

    def _shifted(self, block: range, places: Sequence[int]) -> Generator[Pass, list[Tensor], Tensor]:
        """A block's first position is predicted by the last one before it, which does not see the block."""
        inside = [place - 1 for place in places if place > block.start]
        count = block.start - self.blocks.frozen
        if count:
            context = self._part(range(self.blocks.frozen, block.start), [block.start - 1])
            newest = self.canvas.part(block, inside, behind=((0, count),))
            kind = "predict" if self.blocks.frozen else "prefill"
            self.blocks.frozen = block.start
            self._last, logits = yield Pass((context, newest), kind, freeze=count)
        else:
            logits = (yield Pass((self.canvas.part(block, inside),)))[0]
        return logits if len(inside) == len(places) else torch.cat([self._last, logits])


def start(canvas: Canvas, settings: TransferSettings, spec: ModelSpec) -> Program:
    """Block after block; the engine ends the row behind one that holds an end of text."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length, anchor=canvas.prompt)
    look = _Look(blocks, spec, settings)
    for block in blocks.answer(whole=False):
        for count in transfers(canvas, block, settings.steps or blocks.length, settings):
            places = canvas.open(block)
            asked = look.asked(places)
            logits = yield from look.look(block, places, asked)
            settle(canvas, places, block, logits, count, settings, asked)
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="bd3lm",
    summary="blocks aligned to the end of the prompt, as many positions a pass as a noise schedule says",
    source="ZHZisZZ/dllm ca176752 dllm/core/samplers/bd3lm.py (arXiv 2503.09573)",
    settings=TransferSettings,
    start=start,
    counts=Counts.ANSWER_AT_MOST,
)
