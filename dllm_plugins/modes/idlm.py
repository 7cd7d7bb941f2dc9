"""I-DLM's strided decoding (arXiv 2604.11035) as NVIDIA-NeMo/Automodel does it.

Source: NVIDIA-NeMo/Automodel `examples/dllm_generate/generate.py` (`IDLMSampler`): strictly causal
attention, the row at p - 1 predicts position p, blocks of four positions behind the
prompt, Fast-dLLM's threshold rule. That loop forwards everything in every pass; a causal
model sees nothing behind it, so here all but the block comes from an exact cache.
"""

from pydantic import Field

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.choosing import at_least
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.prediction import probability_of


class IdlmSettings(Settings):
    """Options of I-DLM's sampler."""

    block_length: int | None = Field(None, description="positions denoised together (the stride)")
    threshold: float = Field(0.9, description="commit all that are as probable, the most probable one always")


def next_pass(canvas: Canvas, frozen: int, block: range, positions: list[int]) -> Pass:
    """The block and the token before it, which predicts its first; what lies between that and the prefix freezes."""
    newest, wanted = range(block.start - 1, block.stop), [position - 1 for position in positions]
    count = newest.start - frozen
    if not count:
        return Pass((canvas.part(newest, wanted, causal=True),))
    context = canvas.part(range(frozen, newest.start), causal=True)
    behind = canvas.part(newest, wanted, causal=True, behind=((0, count),))
    return Pass((context, behind), "predict" if frozen else "prefill", freeze=count)


def start(canvas: Canvas, settings: IdlmSettings, spec: ModelSpec) -> Program:
    """Block after block; tokens are final from left to right."""
    length, frozen = settings.block_length or spec.block_length, 0
    for block in blocks_of(canvas, length):
        while positions := canvas.open(block):
            logits = (yield next_pass(canvas, frozen, block, positions))[-1].logits
            frozen = block.start - 1
            tokens = draw_open(canvas, logits, positions)
            for index in at_least(probability_of(logits, tokens), settings.threshold):
                canvas.write(positions[index], int(tokens[index]), logits[index])
            canvas.release_committed()


SAMPLER = Sampler(
    name="idlm",
    summary="strided blocks under a causal mask, shifted, exact cache",
    source="NVIDIA-NeMo/Automodel examples/dllm_generate/generate.py (arXiv 2604.11035)",
    settings=IdlmSettings,
    start=start,
    unheld=None,
)
