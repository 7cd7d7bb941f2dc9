"""MGDM's sampler (arXiv 2410.14157): every pass writes all positions anew, and opens the least sure ones again.

Source: HKUNLP/diffusion-vs-ar 6743981 `trainer.py`. Pass t of T, counted down to 0, predicts every position, those
that hold a token included, and writes it. Of n positions the floor(n t / T) with the lowest scores then open again; the
score is the log-probability of the token plus Gumbel noise times `stochastic` t / T ("stochastic0.5-linear" there,
without noise "deterministic"). So a token that looked right early can still be revised, until the last pass.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose


class MgdmSettings(Settings):
    """Options of MGDM's sampler."""

    steps: int = Field(20, description="passes over the whole answer")
    stochastic: float = Field(0.5, ge=0.0, le=100.0, description="noise of which positions open again; 0 is none")
    scheduler: Literal["linear", "cosine"] = Field("linear", description="how many open again")


def share(settings: MgdmSettings, left: int) -> float:
    """The share of all positions that open again when `left` passes are left."""
    if settings.scheduler == "linear":
        return left / settings.steps
    return math.cos((settings.steps - left) / settings.steps * math.pi / 2)


def reopened(scores: Tensor, gumbel: Tensor, settings: MgdmSettings, left: int) -> list[int]:
    """Which of N positions open again; scores and noise float64 [N]."""
    count = math.floor(len(scores) * share(settings, left))
    noisy = scores + gumbel * (settings.stochastic * left / settings.steps)
    lowest: list[int] = noisy.argsort(stable=True)[:count].tolist()
    return lowest


def start(canvas: Canvas, settings: MgdmSettings, spec: ModelSpec) -> Program:
    """`steps` passes over the whole answer; nothing is final before the last."""
    view, answer = WholeCanvas(canvas, spec), range(canvas.prompt, canvas.end)
    positions = canvas.free(answer)
    for left in reversed(range(settings.steps)):
        logits = canvas.drawable((yield from view.forward(positions, answer)).logits)
        tokens = draw_open(canvas, logits, positions)
        scores = torch.log_softmax(logits.double(), -1).gather(1, tokens.to(logits.device)[:, None])[:, 0].cpu()
        for position, token, source in zip(positions, tokens.tolist(), logits, strict=True):
            canvas.write(position, token, source)
        if left:
            gumbel = canvas.row.noise.gumbel(Key(Purpose.MGDM_ORDER, step=left), len(positions))
            for index in reopened(scores, gumbel, settings, left):
                canvas.reopen(positions[index])
    canvas.release(canvas.end)


SAMPLER = Sampler(
    name="mgdm",
    summary="writes all positions in every pass, and opens the least sure ones again",
    source="HKUNLP/diffusion-vs-ar 6743981 trainer.py (arXiv 2410.14157)",
    settings=MgdmSettings,
    start=start,
    unheld="it writes over what stands",
    suffix=True,
    attention=frozenset({"bidirectional"}),
)
