"""Autoregressive decoding: clean rows only, one token a pass. Every other mode is measured against it."""

from collections.abc import Hashable

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import frontier
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings


def start(canvas: Canvas, _settings: Settings, _spec: ModelSpec) -> Program:
    """What is not cached yet is forwarded; its last token predicts the next."""
    row = canvas.row
    kind = "prefill" if len(row.tokens) == row.prompt else "predict"
    canvas.cut(len(row.tokens))
    canvas.extend()
    while True:
        new = row.tokens[row.frozen :]
        segment = Segment(row.handle, new, range(row.frozen, len(row.tokens)), wanted=(len(new) - 1,))
        [answer] = yield Pass((segment,), kind, freeze=len(new), asks=(frontier(row),))
        canvas.append(answer, 1)
        canvas.extend()
        kind = "predict"


def same_text(_settings: Settings, _config: SamplingConfig, spec: ModelSpec) -> Hashable:
    """Modes that verify give this text, too, where a position's bits do not depend on how many rows there are."""
    return "ar" if spec.numerics.startswith("row-invariant") else None


SAMPLER = Sampler(
    name="ar",
    summary="one token a pass, causal: the base model as it is",
    source="autoregressive decoding",
    settings=Settings,
    start=start,
    unheld=None,
    onward=True,
    keeps_prefix=True,
    resumes=True,
    same_text=same_text,
)
