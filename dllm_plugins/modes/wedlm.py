"""WeDLM's streaming decoder (arXiv 2512.22737): causal attention over known tokens first, masks behind them.

Source: Tencent/WeDLM 0216110 `wedlm/engine/{wedlm_decoder,sampler}.py`. A window of open
positions slides over the text: known tokens at its front are forwarded once more, which
makes their keys final, and leave it after that pass. A mask sees every known token, also
those to its right. What a pass commits goes by the entropy of the raw logits; top_k and
top_p cut them before the temperature does its work.
"""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.drawing import draw_tokens
from dllm_plugins.modes.drawing import extend
from dllm_plugins.modes.drawing import release
from dllm_plugins.prediction import distribution


class WedlmSettings(Settings):
    """Options of WeDLM's streaming decoder."""

    block_length: int | None = Field(None, description="open positions in the window (`window_size`)")
    entropy_threshold: float | None = Field(
        0.4, ge=0.0, description="commit all with less entropy; None: only the position with the least"
    )
    pos_penalty_factor: float = Field(0.02, ge=0.0, description="entropy added per position behind the first open one")


def known_first(canvas: Canvas, begin: int, end: int) -> Pass:
    """Everything from `begin` on, reordered; what stands before the first open position freezes.

    The pass returns the logits of the open positions.
    """
    positions = canvas.open(range(begin, end))
    segment = canvas.part([*canvas.committed(range(begin, end)), *positions], positions, causal=True)
    return Pass((segment,), "predict" if begin else "prefill", freeze=positions[0] - begin)


def chosen(logits: Tensor, positions: list[int], settings: WedlmSettings) -> list[int]:
    """Indices into the open positions; logits [N, V]."""
    entropy = torch.special.entr(torch.softmax(logits.float(), dim=-1)).sum(-1).cpu()
    entropy += (torch.tensor(positions) - positions[0]) * settings.pos_penalty_factor
    if settings.entropy_threshold is not None:
        sure: list[int] = (entropy < settings.entropy_threshold).nonzero()[:, 0].tolist()
        if sure:
            return sure
    return [int(entropy.argmin())]


def drawn(canvas: Canvas, logits: Tensor, positions: list[int]) -> Tensor:
    """Tokens [N]; the cuts act on the raw logits, the temperature on what they leave."""
    draws = canvas.row.canvas_draws(positions)
    if canvas.row.config.temperature > 0:
        logits = distribution(canvas.drawable(logits), [replace(draw, temperature=1.0) for draw in draws]).log()
        draws = [replace(draw, top_k=None, top_p=None) for draw in draws]
    return draw_tokens(canvas, logits, draws)


def start(canvas: Canvas, settings: WedlmSettings, spec: ModelSpec) -> Program:
    """Pass after pass until the end of the text has left the window."""
    size, begin, first = settings.block_length or spec.block_length, 0, canvas.prompt
    del canvas.tokens[first:]
    while True:
        extend(canvas, first + size)
        positions = canvas.open(range(first, first + size))
        logits = (yield known_first(canvas, begin, first + size))[0].logits
        if release(canvas, first):
            return
        tokens = drawn(canvas, logits, positions)
        for index in chosen(logits, positions, settings):
            canvas.write(positions[index], int(tokens[index]), logits[index])
        begin, first = first, next(iter(canvas.open(range(first, first + size))), first + size)


SAMPLER = Sampler(
    name="wedlm",
    summary="a sliding window, known tokens first under a causal mask, least entropy first",
    source="Tencent/WeDLM 0216110 wedlm/engine (arXiv 2512.22737)",
    settings=WedlmSettings,
    start=start,
    unheld=None,
)
