"""Mode `pair`: one model drafts, another one verifies; the text is that of the other's own mode `ar`.

The denoiser is a pair (:mod:`dllm_plugins.pairs`). The two take turns: its drafter says what may follow the final text,
and the next pass of its target holds the clean rows [last token, d1 ... dk]. Drafts are accepted while they equal what
these rows themselves draw, with noise keyed on the position, so nothing of the drafter shows in the text (speculative
decoding with a diffusion drafter: arXiv 2408.05636, 2510.02358). How many there are the clock decides
(:mod:`dllm_plugins.drafting.pace`).
"""

import time
from collections.abc import Sequence
from functools import partial

from pydantic import Field

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.drafting.acceptance import Proposal
from dllm_plugins.drafting.pace import Pace
from dllm_plugins.drafting.planner import LONGEST_CHAIN
from dllm_plugins.drafting.planner import FixedPlan
from dllm_plugins.drafting.speculation import Speculation
from dllm_plugins.modes.ar import same_text
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.processes.base import NoiseProcess


class PairSettings(Settings):
    """Options of decoding with two models."""

    draft_length: int | None = Field(None, description="a fixed layout: so many drafts in every pass")


def _drafted(this: Speculation, told: int, size: int) -> Dialogue[list[Proposal]]:
    """A pass of the drafter over what is final from position `told` on; what it proposes behind that."""
    row, end = this.row, len(this.row.tokens)
    asked = range(end, end + size)
    text = Segment(row.handle, row.tokens[told:], range(told, end), draws=row.draws(asked))
    # What a constraint allows is asked of the drafts later, and of the rows that verify them.
    [answer] = yield this.apart(text, Ask(positions=()))
    proposed: Sequence[tuple[float, float]] = answer.hidden.tolist()
    this.canvas.sure.update(zip(asked, (probability for _, probability in proposed), strict=False))
    return [Proposal(int(token), "denoiser", 1.0) for token, _ in proposed]


def start(process: NoiseProcess, canvas: Canvas, settings: PairSettings, spec: ModelSpec) -> Program:
    """Verify, accept, have what follows drafted if that pays."""
    row, told, fixed = canvas.row, 0, settings.draft_length
    canvas.cut(row.prompt)
    canvas.extend()
    pace, plan = Pace(spec.draft_length), FixedPlan(LONGEST_CHAIN, "denoiser")
    this, kind = Speculation(process, canvas, plan, spec), "prefill"
    drawn, size, began = list[Proposal](), 0, time.perf_counter()
    while True:
        [answer] = yield this.verify(kind, drawn)
        count, drawn = this.accept(answer), []
        now = time.perf_counter()
        if kind == "verify":
            pace.took(size, count, now - began)
        kind, began = "verify", now
        size = min(fixed or pace.length, this.groups.get(count, 0), row.remaining - 1)
        if size > 0:
            this.count("open_rows", size)
            drawn = yield from _drafted(this, told, size)
            told = len(row.tokens)


def sampler(process: NoiseProcess) -> Sampler:
    """It, on a process that says what an open position holds."""
    return Sampler(
        name="pair",
        summary="drafts of a diffusion model, verified by another model: the text of that one's ar in fewer passes",
        source="SpecDiff, arXiv 2408.05636; DiffuSpec, arXiv 2510.02358; the layout is ours",
        settings=PairSettings,
        start=partial(start, process),
        unheld=None,
        onward=True,
        keeps_prefix=True,
        same_text=same_text,
    )
