"""AR-verified diffusion drafts: the text of mode `ar` in fewer passes.

One pass holds the clean rows [last token, d1 ... dk] and, behind some of them, a group
of open rows that drafts what follows it, so verifying and drafting share the pass (as
in TiDAR, arXiv 2511.08923; our layout: docs/default-model.md). Drafts are accepted
while they equal what the clean rows themselves draw, with noise keyed on the position,
so sampled text equals sampled AR text too: what is drafted, and where, never shows.
A plan (:mod:`dllm_plugins.drafting`) says how many drafts are verified and where groups stand.
Where clean and open rows cannot share a call, the two take turns: one pass verifies, the
next one drafts behind what was accepted.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import Drafts
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.costs import MOST_ROWS
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.acceptance import FORCED
from dllm_plugins.drafting.acceptance import SOURCES
from dllm_plugins.drafting.acceptance import Draft
from dllm_plugins.drafting.acceptance import Source
from dllm_plugins.drafting.planner import LONGEST_CHAIN
from dllm_plugins.drafting.planner import ChosenPlan
from dllm_plugins.drafting.planner import FixedPlan
from dllm_plugins.drafting.planner import Plan
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.ar import frontier
from dllm_plugins.modes.ar import same_text
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.processes.base import NoiseProcess

#: Copied drafts of a pass where nobody says how many and nobody knows what they cost.
LOOKED_UP = 8


#: An answer of fewer tokens has no use for drafts: they are made in one pass and verified in the next.
_WORTH_IT = 3
#: Of `costs`: a number of rows, and what a pass over them takes.
_Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]
_Milliseconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class SpeculativeSettings(Settings):
    """Options of speculative decoding."""

    draft_length: int | None = Field(None, description="a fixed layout: so many drafts in every pass")
    drafts: Drafts | None = Field(None, description="where drafts come from")
    costs: dict[_Rows, _Milliseconds] | None = Field(
        None, min_length=1, description="milliseconds of a pass by its rows, in place of what was measured"
    )


class Speculation:
    """One row: drafts stand on its canvas behind the final text."""

    def __init__(self, process: NoiseProcess, canvas: Canvas, plan: Plan, spec: ModelSpec) -> None:
        self.process = process
        self.canvas = canvas
        self.row = canvas.row
        self.plan = plan
        self.spec = spec
        self.frozen = canvas.row.frozen
        self.verified: list[Draft] = []
        self.groups: Mapping[int, int] = {}
        self.forced = 0
        sources = SOURCES if canvas.row.limits is None else (*SOURCES, FORCED)
        names = [f"{source}_{what}" for source in sources for what in ("verified", "accepted")]
        # Modes that take turns in an answer count on.
        canvas.row.drafts = dict.fromkeys([*names, "open_rows"], 0) | (canvas.row.drafts or {})

    def group(self, position: int, size: int, behind: tuple[tuple[int, int], ...] = ()) -> Segment:
        """Open rows that draft what follows the token at `position`, whose own row is not needed."""
        return self.canvas.noisy(self.process.noised(size, self.spec), range(position, position + size), behind)

    def count(self, what: str, number: int = 1) -> None:
        """So many more, of what the statistics tell of drafts."""
        assert self.row.drafts is not None, "set at the beginning"
        self.row.drafts[what] += number

    def verify(self, kind: str, keep: int, denoised: Sequence[Draft]) -> Pass:
        """Clean rows (what is not cached, then drafts) and a group behind each candidate the plan says.

        :param denoised: the drafts that the denoiser has for what follows the final text.
        """
        row, canvas = self.row, self.canvas
        drafts = self._possible(self.plan.drafts(row.tokens, denoised))
        first = len(row.tokens) - self.frozen - 1
        layout = self.plan.layout(drafts, first + 1, row.remaining, row.company)
        self.verified = drafts[: layout.verified]
        canvas.tokens[len(row.tokens) :] = [draft.token for draft in self.verified]
        clean, positions = canvas.tokens[self.frozen :], range(self.frozen, len(canvas.tokens))
        segments = [Segment(row.handle, clean, positions, wanted=range(first, len(clean)))]
        self.groups = layout.groups
        for accepted, size in self.groups.items() if self.spec.mixes else ():
            segments.append(self.group(len(row.tokens) + accepted, size, ((0, first + accepted + 1),)))
        asks = (frontier(canvas, len(self.verified)), *(Ask(of) for of in range(1, len(segments))))
        return Pass(tuple(segments), kind, keep=keep, asks=asks)

    def _possible(self, drafts: list[Draft]) -> list[Draft]:
        """Drafts up to the first that a constraint refuses, and what has to follow them."""
        limits, tokens = self.row.limits, list(self.row.tokens)
        if limits is None:
            return drafts
        begin = len(tokens)
        tokens += [draft.token for draft in drafts]
        allowed = limits.next_masks(tokens, range(begin, len(tokens))) if drafts else ()
        count = next((place for place, mask in enumerate(allowed) if not mask[drafts[place].token]), len(drafts))
        found, kept = dict(limits.forced(tokens[: begin + count])), drafts[:count]
        while len(kept) < LONGEST_CHAIN and begin + len(kept) in found:
            kept.append(Draft(found[begin + len(kept)], FORCED, 1.0))
        return kept

    def accept(self, answer: Answer) -> int:
        """Take over the drafts that equal what was said, and the token behind them; how many drafts."""
        count = 0
        for index, draft in enumerate(self.verified):
            self.count(f"{draft.source}_verified")
            if count == index and draft.token == answer.tokens[index]:
                self.count(f"{draft.source}_accepted")
                count += 1
        self.canvas.append(answer, count + 1)
        self.forced = self.canvas.extend()
        self.plan.learn(self.verified, count)
        return count

    def draft(self, hidden: Tensor, known: int) -> Dialogue[list[Draft]]:
        """Draw drafts left to right, each knowing the two tokens before it; hidden [n, width].

        :param known: how many of these positions a constraint has filled since.
        """
        tokens, drawn = self.canvas.tokens, list[Draft]()
        for position in range(known, len(hidden)):
            if drawn and not self.plan.go_on(drawn):
                break
            left = torch.tensor([(*tokens[-1:-3:-1], -1)[:2]])
            draws = partial(self.canvas.row.draws, [len(tokens)])
            own = hidden[position : position + 1]
            [answer] = yield (Ask(own, draws, left, shortlist=True, positions=[len(tokens)], onward=True),)
            probability = float(answer.probability[0]) if self.plan.weighs or self.row.said is not None else 1.0
            drawn.append(self.plan.denoised(answer.tokens[0], probability, position))
            self.canvas.sure[len(tokens)] = probability
            tokens.append(answer.tokens[0])
        return drawn


def start(process: NoiseProcess, canvas: Canvas, settings: SpeculativeSettings, spec: ModelSpec) -> Program:
    """Verify, accept, draft again behind the last accepted token."""
    row, keep, drawn = canvas.row, 0, list[Draft]()
    kind = "prefill" if len(row.tokens) == row.prompt else "verify"
    canvas.cut(len(row.tokens))
    canvas.extend()
    this = Speculation(process, canvas, plan_of(settings, spec, row), spec)
    while True:
        answer, *groups = yield this.verify(kind, keep, drawn)
        this.count("open_rows", sum(this.groups.values()) if spec.mixes else 0)
        final, kind = len(row.tokens), "verify"
        count, drawn = this.accept(answer), []
        keep, this.frozen = final + count - this.frozen, final + count
        if count not in this.groups:
            continue
        if spec.mixes:
            group, known = groups[list(this.groups).index(count)], this.forced
        else:
            own = this.group(len(row.tokens) - 1, this.groups[count])
            [group] = yield Pass((own,), "draft", keep=keep, asks=(Ask(),))
            this.count("open_rows", this.groups[count])
            keep, known = 0, 0
        drawn = yield from this.draft(group.hidden, known)


def plan_of(settings: SpeculativeSettings, spec: ModelSpec, row: Row) -> Plan:
    """Fixed where a length is given or nobody knows what passes cost, else chosen for every pass.

    :raises OptionError: if the choice is asked for, and nobody knows.
    """
    source: Source = "prompt_lookup" if settings.drafts == "prompt_lookup" else "denoiser"
    if settings.draft_length is not None:
        return FixedPlan(settings.draft_length, source)
    if row.remaining < _WORTH_IT:
        return FixedPlan(0, source)
    if spec.mixes or source == "prompt_lookup":
        costs = row.costs() if settings.costs is None else Costs.of_clean(settings.costs)
        if costs is not None:
            sources = SOURCES if settings.drafts in (None, "auto") else (source,)
            return ChosenPlan(costs, sources, row.config.temperature > 0)
    if settings.drafts == "auto":
        raise OptionError(
            message("{drafts}='auto' needs to know what passes cost, which {} does not tell; leave it out", spec.name)
        )
    return FixedPlan(spec.draft_length if source == "denoiser" else LOOKED_UP, source)


def fit(settings: SpeculativeSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse what a fixed layout would not honour, and choices where clean and open rows take turns.

    :raises OptionError: naming the option and the remedy.
    """
    chosen = "{drafts}='auto'" if settings.drafts == "auto" else "costs in {preset_options}"
    if settings.drafts != "auto" and settings.costs is None:
        return
    if settings.draft_length is not None:
        raise OptionError(
            message(
                chosen + " is for a layout that is chosen; leave it or {draft_length}={} out", settings.draft_length
            )
        )
    if not spec.mixes and settings.drafts != "prompt_lookup":
        raise OptionError(
            message(
                chosen + " is for a layout that is chosen, and clean and open rows of {} take turns; leave it out, or "
                "use {drafts}='prompt_lookup' without it",
                spec.name,
            )
        )


def sampler(process: NoiseProcess) -> Sampler:
    """It, on a process that says what an open position holds."""
    return Sampler(
        name="speculative",
        summary="diffusion drafts, verified autoregressively: the text of ar in fewer passes",
        source="TiDAR, arXiv 2511.08923; the layout is ours",
        settings=SpeculativeSettings,
        start=partial(start, process),
        unheld=None,
        onward=True,
        keeps_prefix=True,
        resumes=True,
        same_text=same_text,
        fit=fit,
    )
