"""dllm's sampler for block diffusion models (BD3LM): Tiny-A2D.

Source: ZHZisZZ/dllm ca176752 `dllm/core/samplers/bd3lm.py`. Blocks are aligned to the end
of the prompt; text before a block is seen block by block, too. The reference encodes it
again for every block; here it freezes once. It fills prompts up on the left and then takes
every token that looks like its filling for filling, also inside a prompt or an answer;
ours fills up nothing, so such a token is a token.
"""

from dataclasses import replace

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import UNLIMITED
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.blocks import Blocks
from dllm_plugins.modes.mdlm import TransferSettings
from dllm_plugins.modes.mdlm import ask_for
from dllm_plugins.modes.mdlm import blind
from dllm_plugins.modes.mdlm import commit
from dllm_plugins.modes.mdlm import passes_over
from dllm_plugins.modes.steps import Counts


def forward(blocks: Blocks, block: range, positions: list[int], settings: TransferSettings) -> Dialogue[Answer]:
    """What is said at positions of the newest block; logits with guidance, or where the model is shifted."""
    canvas, guidance = blocks.canvas, settings.guidance
    if guidance is None:
        ask = LOGITS if blocks.shift else ask_for(canvas, positions, settings)
        return (yield from blocks.forward(block, positions, ask=ask))
    # Both ways from the beginning: a row has one prefix, and here they differ.
    groups = [blocks.number(position) for position in range(block.stop)]
    whole = canvas.part(range(block.stop), [position - blocks.shift for position in positions], groups=groups)
    asks = (UNLIMITED, replace(UNLIMITED, of=1))
    conditional, free = yield Pass((whole, blind(canvas, whole, settings.cfg_keep_tokens)), asks=asks)
    guided = free.logits + (guidance + 1) * (conditional.logits - free.logits)
    return of_logits(canvas.held(positions, guided))


def start(canvas: Canvas, settings: TransferSettings, spec: ModelSpec) -> Program:
    """Block after block; the engine ends the row behind one that holds an end of text."""
    length, shift = settings.block_length or spec.block_length, int(spec.shifted or settings.right_shift_logits)
    blocks = Blocks(canvas, length, anchor=canvas.prompt, shift=shift)
    for block in blocks.answer(whole=False):
        for positions, count in passes_over(canvas, block, settings.steps or length, settings):
            answer = yield from forward(blocks, block, positions, settings)
            commit(canvas, positions, block, answer, count, settings)
        canvas.release(block.stop)


SAMPLER = Sampler(
    name="bd3lm",
    summary="blocks aligned to the end of the prompt, as many positions a pass as a noise schedule says",
    source="ZHZisZZ/dllm ca176752 dllm/core/samplers/bd3lm.py (arXiv 2503.09573)",
    settings=TransferSettings,
    start=start,
    unheld=None,
    suffix=True,
    counts=Counts.ANSWER_AT_MOST,
)
