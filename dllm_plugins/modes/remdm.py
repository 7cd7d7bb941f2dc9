"""ReMDM: masked diffusion that takes tokens back, on any masked checkpoint (arXiv 2503.00307).

Source: kuleshov-group/remdm f830d65 `diffusion.py`, `_ddpm_caching_update`. With the share
alpha(t) committed now and alpha(s) after the step, a committed position is masked again with
probability sigma <= (1 - alpha(s)) / alpha(t), and an open one committed with probability
(alpha(s) - (1 - sigma) alpha(t)) / (1 - alpha(t)), which keeps the share at alpha(s):

- cap: sigma = min(eta, its bound); rescale: sigma = eta times its bound;
- loop: alpha rises to alpha_on at t_on, waits there with sigma = eta until t_off, then rises to 1;
- conf: sigma is the bound times a softmax over minus the probability each token was drawn
  with. Open positions are committed as if nothing went back, as in the source, so less than
  alpha is committed until the last step.

Time runs from 1 to 0. The reference stops at 1e-5 and takes the argmax of what is still
open; ours takes its last step to 0. Its loop steps over t_on and t_off without looking, so
more or less than alpha_on is committed; ours takes alpha where a step really begins and ends.
Steps that commit nothing need no pass.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from pydantic import model_validator

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.flow import SchedulerSettings
from dllm_plugins.modes.flow import moving
from dllm_plugins.modes.spans import ATTENTION
from dllm_plugins.modes.spans import Spans
from dllm_plugins.modes.spans import SpanSettings
from dllm_plugins.modes.spans import fit
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.processes.flow import Scheduler

#: Eta of the reference's scripts.
ETA = {"cap": 0.008, "rescale": 0.015, "loop": 0.02}
#: When the reference's script loops, and how much is committed then.
LOOP = {"t_on": 0.55, "t_off": 0.05, "alpha_on": 0.9}


@dataclass(frozen=True, slots=True)
class Loop:
    """alpha rises to `alpha_on`, waits from `t_on` down to `t_off`, and rises to 1."""

    t_on: float
    t_off: float
    alpha_on: float

    def alpha(self, time: float) -> float:
        """The share committed at a time, which runs from 1 to 0."""
        if time > self.t_on:
            return (1 - time) / (1 - self.t_on) * self.alpha_on
        return self.alpha_on if time > self.t_off else 1 - time / self.t_off * (1 - self.alpha_on)


class RemdmSettings(SchedulerSettings, SpanSettings):
    """Options of ReMDM."""

    variant: Literal["cap", "rescale", "conf", "loop"] = Field("cap", description="how much is taken back, and what")
    eta: float | None = Field(
        None, ge=0.0, le=1.0, description="strength: " + ", ".join(f"{eta} for {name}" for name, eta in ETA.items())
    )
    t_on: float | None = Field(None, gt=0.0, lt=1.0, description=f"loop: when it begins ({LOOP['t_on']})")
    t_off: float | None = Field(None, gt=0.0, lt=1.0, description=f"loop: when it ends ({LOOP['t_off']})")
    alpha_on: float | None = Field(None, gt=0.0, lt=1.0, description=f"loop: the share committed ({LOOP['alpha_on']})")

    @model_validator(mode="after")
    def _fit(self) -> "RemdmSettings":
        given = {name: getattr(self, name) for name in LOOP if getattr(self, name) is not None}
        if self.variant == "conf" and self.eta is not None:
            raise ValueError(f"eta={self.eta} has no effect with variant='conf'; leave it out")
        if self.variant != "loop" and given:
            name, value = next(iter(given.items()))
            raise ValueError(f"{name}={value} has no effect with variant={self.variant!r}; leave it out or say 'loop'")
        if self.variant == "loop":
            self._check_loop()
        return self

    def _check_loop(self) -> None:
        loop, eta = self.loop(), self.strength()
        if self.scheduler != "linear":
            raise ValueError(f"scheduler={self.scheduler!r} has no effect with variant='loop'; leave it out")
        if loop.t_off >= loop.t_on:
            raise ValueError(f"t_off={loop.t_off} must be below t_on={loop.t_on}; time runs from 1 to 0")
        most = (1 - loop.alpha_on) / loop.alpha_on
        if eta > most:
            raise ValueError(f"eta={eta} is above (1 - alpha_on) / alpha_on = {most:.4f}; lower it or alpha_on")

    def strength(self) -> float:
        """Eta, as given or as in the reference's script."""
        return ETA.get(self.variant, 0.0) if self.eta is None else self.eta

    def loop(self) -> Loop:
        """When it loops, as given or as in the reference's script."""
        return Loop(**{name: LOOP[name] if getattr(self, name) is None else getattr(self, name) for name in LOOP})


@dataclass(frozen=True, slots=True)
class RemdmStep:
    """One step: the probability that an open position is committed, and that a committed one is reopened.

    :param reopen: with conf, what the softmax is multiplied with.
    """

    commit: float
    reopen: float


def step_between(settings: RemdmSettings, begin: float, end: float) -> RemdmStep:
    """From one time to the next, which is less."""
    if settings.variant == "loop":
        alpha, loops = settings.loop().alpha, settings.loop().t_off < begin <= settings.loop().t_on
    else:
        scheduler: Scheduler = settings.chosen_scheduler()
        alpha, loops = (lambda time: scheduler.at(1 - time)), True
    now, after = alpha(begin), 1.0 if end <= 0 else alpha(end)
    bound = min(1.0, (1 - after) / now) if now > 0 else 0.0
    sigma = {
        "cap": min(settings.strength(), bound),
        "rescale": settings.strength() * bound,
        "conf": 0.0,
        "loop": min(settings.strength(), bound) if loops else 0.0,
    }[settings.variant]
    commit = 1.0 if end <= 0 else (after - (1 - sigma) * now) / (1 - now)
    return RemdmStep(commit, bound if settings.variant == "conf" else sigma)


def steps(settings: RemdmSettings, count: int) -> list[RemdmStep]:
    """All of them, of equal length."""
    times = [(count - number) / count for number in range(count + 1)]
    return [step_between(settings, begin, end) for begin, end in pairwise(times)]


def shares(reopen: float, committed: list[int], sure: dict[int, float], settings: RemdmSettings) -> list[float]:
    """The probability that each committed position is reopened.

    :param sure: the probability each token was drawn with.
    """
    if settings.variant != "conf":
        return [reopen] * len(committed)
    unsure = torch.tensor([-sure[position] for position in committed], dtype=torch.float64)
    found: list[float] = (reopen * torch.softmax(unsure, 0)).tolist()
    return found


def start(canvas: Canvas, settings: RemdmSettings, spec: ModelSpec) -> Program:
    """Part after part, step after step."""
    spans, sure = Spans(canvas, spec, settings), dict[int, float]()
    final = settings.variant != "conf" and settings.strength() == 0
    for span in spans:
        # A constraint may have filled a part before it is looked at.
        for number, step in enumerate(steps(settings, settings.steps or max(1, len(canvas.open(span))))):
            luck = canvas.row.noise.uniform(Key(Purpose.REMDM_MOVES, span.start, number), len(span) + 1).tolist()
            opened = canvas.open(span)
            committed = canvas.committed(span)
            committing = moving(opened, luck, span, [step.commit] * len(opened), evenly=False)
            reopening = moving(committed, luck, span, shares(step.reopen, committed, sure, settings), evenly=False)
            drawn = yield from spans.commit(span, committing, number)
            sure |= dict(zip(committing, drawn.tolist(), strict=True))
            spans.reopen(reopening)
            if final:
                canvas.release_committed()
        canvas.release(span.stop)


SAMPLER = Sampler(
    name="remdm",
    summary="masked diffusion that takes tokens back: cap, rescale, conf or loop",
    source="kuleshov-group/remdm f830d65 diffusion.py (arXiv 2503.00307)",
    settings=RemdmSettings,
    start=start,
    unheld=None,
    suffix=True,
    fit=fit,
    attention=ATTENTION,
)
