"""Options of speculative decoding, and the plan that they make of a request."""

from typing import Annotated

from pydantic import Field

from dllm_plugins.config import Drafts
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.costs import MOST_ROWS
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.drafting.acceptance import SOURCES
from dllm_plugins.drafting.acceptance import Source
from dllm_plugins.drafting.planner import ChosenPlan
from dllm_plugins.drafting.planner import FixedPlan
from dllm_plugins.drafting.planner import Plan
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Settings

#: Copied drafts of a pass where nobody says how many and nobody knows what they cost.
_LOOKED_UP = 8
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
    return FixedPlan(spec.draft_length if source == "denoiser" else _LOOKED_UP, source)


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
