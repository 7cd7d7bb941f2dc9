"""Discrete flow matching from masks, on any masked checkpoint (arXiv 2407.15595).

A step commits each open position, and reopens each committed one, by itself and with the
probabilities of :mod:`~dllm_plugins.processes.flow`. Which ones does not depend on what the
model says, so a step that commits nothing needs no pass. Without a corrector committed
positions are final; with one nothing of a part is, until its last step. With the integrated
solver and no corrector this is ancestral sampling of masked diffusion (arXiv 2406.07524).

Temperature 1 follows the model; 0 still draws when a position is committed, but not as what.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from pydantic import model_validator

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.spans import ATTENTION
from dllm_plugins.modes.spans import Spans
from dllm_plugins.modes.spans import SpanSettings
from dllm_plugins.modes.spans import fit
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.processes.flow import CUBIC
from dllm_plugins.processes.flow import POWER
from dllm_plugins.processes.flow import Flow
from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.processes.flow import chosen


class SchedulerSettings(Settings):
    """How much is committed at a time."""

    scheduler: Literal["linear", "polynomial", "cosine"] = Field(
        "linear", description="the share committed at time t: t, t^exponent, or 1 - cos(pi t / 2)"
    )
    exponent: float | None = Field(None, gt=0.0, le=16.0, description=f"of the polynomial; {CUBIC:g} if not given")

    @model_validator(mode="after")
    def _exponent_is_used(self) -> "SchedulerSettings":
        if self.exponent is not None and self.scheduler != "polynomial":
            raise ValueError(
                f"exponent={self.exponent} has no effect with scheduler={self.scheduler!r}; leave it out or choose "
                f"scheduler='polynomial'"
            )
        return self

    def chosen_scheduler(self) -> Scheduler:
        """As told."""
        return Scheduler(self.scheduler, CUBIC if self.exponent is None else self.exponent)


class FlowOptions(SchedulerSettings):
    """Options of flow matching from any source."""

    solver: Literal["integrated", "euler"] = Field(
        "integrated", description="rates integrated over a step, or frozen, which cuts steps that are too long"
    )
    corrector: float = Field(0.0, ge=0.0, le=100.0, description="c in 1 + c t^p (1 - t)^p: how much is taken back")
    corrector_power: float | None = Field(None, ge=0.0, le=16.0, description=f"p; {POWER:g} if not given")
    few_steps: bool = Field(
        default=False, description="even steps: each moves as many positions as are expected, and not more by chance"
    )

    @model_validator(mode="after")
    def _fit(self) -> "FlowOptions":
        if self.corrector_power is not None and self.corrector == 0:
            raise ValueError(f"corrector_power={self.corrector_power} has no effect without corrector; set it above 0")
        if self.few_steps and self.solver == "euler":
            raise ValueError("few_steps=True needs solver='integrated': frozen rates want short steps")
        return self

    def flow(self) -> Flow:
        """The path they describe."""
        power = POWER if self.corrector_power is None else self.corrector_power
        return Flow(self.chosen_scheduler(), self.corrector, power, self.solver)


class FlowSettings(FlowOptions, SpanSettings):
    """Options of flow matching from masks."""

    # Steps that move nothing make no pass: all of them between two passes keep other rows waiting.
    steps: int | None = Field(
        None, le=8192, description="steps a part is spread over; as many as it has open positions"
    )


def moving(
    positions: list[int], luck: list[float], span: range, probability: Sequence[float], *, evenly: bool
) -> list[int]:
    """Those of `positions` that jump.

    :param luck: a uniform number for each position of `span`, and one more.
    :param probability: of each of `positions`.
    """
    own = [*(luck[position - span.start] for position in positions), luck[-1]]
    return [
        position for position, jumps in zip(positions, chosen(own, probability, evenly=evenly), strict=True) if jumps
    ]


def start(canvas: Canvas, settings: FlowSettings, spec: ModelSpec) -> Program:
    """Part after part, step after step."""
    spans, flow = Spans(canvas, spec, settings), settings.flow()
    for span in spans:
        for number, step in enumerate(flow.steps(settings.steps or len(canvas.open(span)))):
            luck = canvas.row.noise.uniform(Key(Purpose.FLOW_MOVES, span.start, number), len(span) + 1).tolist()
            opened = canvas.open(span)
            committed = canvas.committed(span)
            committing = moving(opened, luck, span, [step.commit] * len(opened), evenly=settings.few_steps)
            reopening = moving(committed, luck, span, [step.reopen] * len(committed), evenly=settings.few_steps)
            yield from spans.commit(span, committing, number)
            spans.reopen(reopening)
            if not settings.corrector:
                canvas.release_committed()
        canvas.release(span.stop)


SAMPLER = Sampler(
    name="flow",
    summary="discrete flow matching from masks: schedulers, a corrector, few steps",
    source="arXiv 2407.15595; integrated rates after arXiv 2509.20624",
    settings=FlowSettings,
    start=start,
    unheld=None,
    suffix=True,
    fit=fit,
    attention=ATTENTION,
)
