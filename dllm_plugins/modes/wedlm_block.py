"""WeDLM's block decoder (arXiv 2512.22737): one block of masks after another, known tokens first.

Source: Tencent/WeDLM 0216110 `hf_compat/modeling_wedlm.py` `generate_wedlm`, which
forwards everything in every pass; here the text before the first open position is
cached, exactly, since under the causal mask nothing behind it is seen. The reference
commits the likeliest token at any `temperature`, which sharpens its confidence only; that
one is `confidence_temperature` here, and the common option samples.
"""

import torch
from pydantic import Field

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.choosing import at_least
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.modes.wedlm import known_first


class WedlmBlockSettings(Settings):
    """Options of WeDLM's block decoder."""

    block_length: int | None = Field(None, description="masks appended together (`block_size`)")
    threshold: float | None = Field(
        None, description="commit all at least this probable (`confidence_threshold`); only the best if not given"
    )
    confidence_temperature: float = Field(1.0, gt=0.0, description="of the probabilities the threshold is compared to")


def start(canvas: Canvas, settings: WedlmBlockSettings, spec: ModelSpec) -> Program:
    """Block after block; the last may be short."""
    length, begin = settings.block_length or spec.block_length, 0
    for block in blocks_of(canvas, length):
        while positions := canvas.open(block):
            logits = (yield known_first(canvas, begin, block.stop))[0].logits
            begin = positions[0]
            tokens = draw_open(canvas, logits, positions)
            probabilities = torch.softmax(logits / settings.confidence_temperature, dim=-1)
            for index in at_least(probabilities.gather(1, tokens[:, None])[:, 0], settings.threshold):
                canvas.write(positions[index], int(tokens[index]), logits[index])
            canvas.release_committed()


SAMPLER = Sampler(
    name="wedlm_block",
    summary="blocks of masks, known tokens first under a causal mask, by confidence",
    source="Tencent/WeDLM 0216110 hf_compat/modeling_wedlm.py (arXiv 2512.22737)",
    settings=WedlmBlockSettings,
    start=start,
    unheld=None,
)
