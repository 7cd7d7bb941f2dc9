"""dllm's sampler for block diffusion models (BD3LM): Tiny-A2D.

Source: ZHZisZZ/dllm ca176752 `dllm/core/samplers/bd3lm.py`. Blocks are aligned to the end
of the prompt; text before a block is seen block by block, too. The reference encodes it
again for every block; here it freezes once. It fills prompts up on the left and then takes
every token that looks like its filling for filling, also inside a prompt or an answer;
ours fills up nothing, so such a token is a token.
"""

from collections.abc import Sequence

import torch

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.mdlm import TransferSettings
from dllm_plugins.modes.mdlm import ask_for
from dllm_plugins.modes.mdlm import blind
from dllm_plugins.modes.mdlm import commit
from dllm_plugins.modes.mdlm import transfers
from dllm_plugins.modes.steps import Counts


class _BlockForwarding:
    """Looks at the newest block: as it is, shifted by one, or with guidance."""

    def __init__(self, blocks: Blocks, spec: ModelSpec, settings: TransferSettings) -> None:
        self.blocks = blocks
        self.canvas = blocks.canvas
        self.shift = int(spec.shifted or settings.right_shift_logits)
        self.settings = settings
        self._last = torch.empty(0)

    def forward(self, block: range, positions: list[int]) -> Dialogue[Answer]:
        """What is said at positions of `block`; logits where two segments of a shifted model are wanted."""
        if self.settings.guidance is not None:
            return (yield from self._guided(block, positions, self.settings.guidance))
        if self.shift:
            return (yield from self._shifted(block, positions))
        return (yield from self.blocks.forward(block, positions, ask=ask_for(self.canvas, positions, self.settings)))

    def _part(self, positions: range, wanted: Sequence[int]) -> Segment:
        """Finished text, each token of which sees its own and earlier blocks."""
        return self.canvas.part(positions, wanted, groups=[self.blocks.number(position) for position in positions])

    def _guided(self, block: range, positions: Sequence[int], guidance: float) -> Dialogue[Answer]:
        """Both ways from the beginning: a row has one prefix, and here they differ."""
        whole = self._part(range(block.stop), [position - self.shift for position in positions])
        conditional, free = yield Pass((whole, blind(self.canvas, whole, self.settings.cfg_keep_tokens)))
        return of_logits(free.logits + (guidance + 1) * (conditional.logits - free.logits))

    def _shifted(self, block: range, positions: Sequence[int]) -> Dialogue[Answer]:
        """A block's first position is predicted by the last one before it, which does not see the block."""
        inside = [position - 1 for position in positions if position > block.start]
        count = block.start - self.blocks.frozen
        if count:
            context = self._part(range(self.blocks.frozen, block.start), [block.start - 1])
            newest = self.canvas.part(block, inside, behind=((0, count),))
            kind = "predict" if self.blocks.frozen else "prefill"
            self.blocks.frozen = block.start
            before, answer = yield Pass((context, newest), kind, freeze=count)
            self._last = before.logits
        else:
            [answer] = yield Pass((self.canvas.part(block, inside),))
        return answer if len(inside) == len(positions) else of_logits(torch.cat([self._last, answer.logits]))


def start(canvas: Canvas, settings: TransferSettings, spec: ModelSpec) -> Program:
    """Block after block; the engine ends the row behind one that holds an end of text."""
    blocks = Blocks(canvas, settings.block_length or spec.block_length, anchor=canvas.prompt)
    forwarding = _BlockForwarding(blocks, spec, settings)
    for block in blocks.answer(whole=False):
        for count in transfers(canvas, block, settings.steps or blocks.length, settings):
            positions = canvas.open(block)
            answer = yield from forwarding.forward(block, positions)
            commit(canvas, positions, block, answer, count, settings)
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="bd3lm",
    summary="blocks aligned to the end of the prompt, as many positions a pass as a noise schedule says",
    source="ZHZisZZ/dllm ca176752 dllm/core/samplers/bd3lm.py (arXiv 2503.09573)",
    settings=TransferSettings,
    start=start,
    counts=Counts.ANSWER_AT_MOST,
)
