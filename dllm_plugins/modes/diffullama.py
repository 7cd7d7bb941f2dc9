"""DiffuLLaMA's sampler (arXiv 2410.17891): positions are revealed in random order.

Source: HKUNLP/DiffuLLaMA c17e897 `model.py`. After pass t of T, every open position is
revealed with probability 1 / (T - t + 1), as the pass before said; what is still open at
the end takes the last pass's word. The reference always samples, at temperature 0.9 and
top_p 0.9; here both are the request's.
"""

from pydantic import Field

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose


class DiffuLlamaSettings(WholeCanvasSettings):
    """Options of DiffuLLaMA's sampler."""

    steps: int = Field(64, description="passes over the whole canvas")


def start(canvas: Canvas, settings: DiffuLlamaSettings, spec: ModelSpec) -> Program:
    """`steps` passes, fewer if nothing is open any more."""
    row, view, block = canvas.row, WholeCanvas(canvas, spec, settings), range(canvas.prompt, canvas.end)
    for left in range(settings.steps, 0, -1):
        positions = canvas.open(block)
        if not positions:
            return
        logits = (yield from view.forward(positions, block)).logits
        tokens = draw_open(canvas, logits, positions)
        luck = row.noise.uniform(Key(Purpose.REVEAL, step=row.step), len(canvas.tokens))
        for index, position in enumerate(positions):
            if float(luck[position]) * left < 1:
                canvas.write(position, int(tokens[index]), logits[index])
        canvas.release_committed()


SAMPLER = Sampler(
    name="diffullama",
    summary="every open position is as likely as any other to be next",
    source="HKUNLP/DiffuLLaMA c17e897 model.py (arXiv 2410.17891)",
    settings=DiffuLlamaSettings,
    start=start,
    unheld=None,
    suffix=True,
)
