"""Dream's sampler (arXiv 2508.15487), also of Dream-Coder and DiffuCoder.

Source: ZHZisZZ/dllm ca176752 `dllm/pipelines/dream/models/generation_utils.py`, a copy of
the checkpoints' own. Time runs from 1 to `eps` in equal steps; going from t to s commits
the share 1 - s/t of what is open, rounded down, so a pass may commit nothing; the last one
commits all. The reference takes the mean number of open positions in the batch and writes
masks over real tokens of rows that have fewer than the others; here every row counts its
own. It reads the first position of a row that is padded on the left from the padding, too,
which matters if that position is open; here it uses its own output, as in a row alone.
"""

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.choosing import spread
from dllm_plugins.modes.confidence import DREAM
from dllm_plugins.modes.confidence import Measure
from dllm_plugins.modes.confidence import commit
from dllm_plugins.modes.confidence import measure
from dllm_plugins.modes.confidence import surest
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose


class ScheduleSettings(WholeCanvasSettings):
    """Options of every sampler that commits a share of what is open."""

    steps: int | None = Field(
        None, ge=1, description="passes over the whole canvas; one per open position if not given"
    )
    alg: str = Field("entropy", description="what makes a position sure")
    alg_temp: float | None = Field(None, ge=0.0, description="above 0: draw the positions, the surest more likely")
    eps: float = Field(1e-3, ge=0.0, le=1.0, description="time of the last step; larger leaves more to the last pass")


class DreamSettings(ScheduleSettings):
    """Options of Dream's sampler."""

    alg: Literal["origin", "maskgit_plus", "topk_margin", "entropy"] = Field(
        "entropy",
        description="what is committed first: anything (origin), the largest probability (maskgit_plus), the largest "
        "lead over the second (topk_margin), or the smallest entropy",
    )


def shares(steps: int, eps: float) -> Tensor:
    """Which part of what is open each pass commits; float32 [steps], as rounding down depends on it."""
    times = torch.linspace(1, eps, steps + 1)
    found = 1 - times[1:] / times[:-1]
    found[-1] = 1
    return found


def start(way: Measure, canvas: Canvas, settings: ScheduleSettings, spec: ModelSpec) -> Program:
    """All of the canvas, pass after pass."""
    row, view, hole = canvas.row, WholeCanvas(canvas, spec, settings), range(canvas.prompt, canvas.end)
    whole = range(len(canvas.tokens))
    for share in shares(settings.steps or len(canvas.open(hole)), settings.eps):
        positions = canvas.open(hole)
        if not positions:
            return
        logits = (yield from view.forward(positions, hole)).logits
        found = measure(logits, canvas, positions, settings.alg, way)
        if settings.alg == "origin":
            luck = row.noise.uniform(Key(Purpose.ORIGIN, step=row.step), len(whole))
            chosen = [position for position in positions if luck[position] < share]
        else:
            sure = spread(found.confidence.to(logits.dtype), positions, whole)
            chosen = surest(sure, int(torch.tensor(float(len(positions))) * share), row, settings.alg_temp)
        commit(canvas, positions, found.token, logits, chosen)
        canvas.release_committed()


def fit(settings: ScheduleSettings, config: SamplingConfig, _spec: ModelSpec) -> None:
    """Refuse what `alg` does not use.

    :raises OptionError: naming the option.
    """
    if settings.alg not in ("origin", "p2"):
        return
    if settings.alg_temp:
        raise OptionError(
            f"alg_temp={settings.alg_temp} has no effect with alg={settings.alg!r}; leave it out or choose another alg"
        )
    if settings.alg == "origin":
        config.check_sampling()


SAMPLER = Sampler(
    name="dream",
    summary="a share of the whole canvas a pass, by entropy, probability, margin or at random",
    source="ZHZisZZ/dllm ca176752 dream/models/generation_utils.py (arXiv 2508.15487)",
    settings=DreamSettings,
    start=partial(start, DREAM),
    unheld=None,
    holes=True,
    suffix=True,
    truncates_greedy=True,
    fit=fit,
)
