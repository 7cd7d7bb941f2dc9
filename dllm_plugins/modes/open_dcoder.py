"""Open-dCoder's sampler: path planning (arXiv 2502.03540), which takes doubtful tokens back, and Dream's algorithms.

Source: pengzhangzhi/Open-dLLM 8b38787 `veomni/models/transformers/qwen2/generation_utils.py`.
Every position that was open in the beginning, inside the prompt too, is looked at in every
pass of `p2`; the least sure ones are open afterwards. A filled position is as sure as the
likeliest token there now, not as the one it holds. The reference ignores its attention
mask, so rows of unequal length see their padding; here rows are never padded.
"""

from typing import Literal

import torch
from pydantic import Field

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes import dream
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.choosing import spread
from dllm_plugins.modes.confidence import OPEN_DLLM
from dllm_plugins.modes.confidence import commit
from dllm_plugins.modes.confidence import measure
from dllm_plugins.modes.whole_canvas import WholeCanvas


class OpenDcoderSettings(dream.ScheduleSettings):
    """Options of Open-dCoder's sampler."""

    alg: Literal["p2", "origin", "maskgit_plus", "topk_margin", "entropy"] = Field(
        "entropy", description="p2 takes the least sure tokens back; the others are Dream's"
    )


def start(canvas: Canvas, settings: OpenDcoderSettings, spec: ModelSpec) -> Program:
    """By path planning or by Dream's schedule."""
    if settings.alg == "p2":
        return plan(canvas, settings, spec)
    return dream.start(OPEN_DLLM, canvas, settings, spec)


def plan(canvas: Canvas, settings: OpenDcoderSettings, spec: ModelSpec) -> Program:
    """Nothing is final before the end."""
    view, hole = WholeCanvas(canvas, spec, settings), range(canvas.prompt, canvas.end)
    variable = canvas.open(hole)
    steps = settings.steps or len(variable)
    for step in range(1, steps + 1):
        positions = canvas.open(variable)
        if not positions:
            break
        logits = (yield from view.forward(variable, hole)).logits
        found = measure(logits, canvas, variable, settings.alg, OPEN_DLLM)
        count = int(torch.tensor(float(len(variable))) * (1.0 - step / steps))
        doubt = torch.argsort(spread(found.confidence, variable, range(len(canvas.tokens)), torch.inf))
        doubtful = doubt[:count].tolist()
        commit(canvas, variable, found.token, logits, list(set(positions).difference(doubtful)))
        for position in doubtful:
            canvas.write(position, canvas.mask)
    canvas.release(canvas.end)


def fit(settings: OpenDcoderSettings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse what `alg` does not use.

    :raises OptionError: naming the option.
    """
    dream.fit(settings, config, spec)
    if settings.alg == "p2" and "eps" in settings.model_fields_set:
        raise OptionError(f"eps={settings.eps} has no effect with alg='p2'; leave it out or choose another alg")


SAMPLER = Sampler(
    name="open_dcoder",
    summary="path planning (p2), which takes doubtful tokens back, and Dream's algorithms",
    source="pengzhangzhi/Open-dLLM 8b38787 qwen2/generation_utils.py (arXiv 2502.03540)",
    settings=OpenDcoderSettings,
    start=start,
    unheld=None,
    holes=True,
    suffix=True,
    truncates_greedy=True,
    fit=fit,
)
