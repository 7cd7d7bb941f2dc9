"""Mode `alternating`: modes, or the two models of a pair, take turns within one answer.

One opens, another fills the middle, the first goes on, over one transcript. Who writes how much is a plan, told before;
what may hold a turn back is how unsure the model was of the token before it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Annotated

from pydantic import Field

from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.config import Drafts
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Stretch
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.modes import repair
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.ruled import RuledSettings
from dllm_plugins.modes.stretches import Writing
from dllm_plugins.modes.stretches import config_of

NAME = "alternating"
#: Tokens of the stretches of a plan that nobody gave: written from left to right, and denoised.
OPENING, MIDDLE = 16, 32
#: A mode, and the most tokens it writes before the next one's turn.
Turn = tuple[str, Annotated[int, Field(ge=1)]]


class AlternatingSettings(RuledSettings):
    """Options of taking turns, and those of the modes that do; each gets what it honours."""

    draft_length: int | None = Field(None, description="drafts in every pass, of modes that verify some")
    drafts: Drafts | None = Field(None, description="where drafts come from")
    plan: tuple[Turn, ...] | None = Field(
        None, min_length=1, description="modes and the tokens each writes in its turn, over and over"
    )
    most_entropy: float | None = Field(
        None,
        ge=0.0,
        allow_inf_nan=False,
        description="nats: while the token before a denoised stretch was less certain, the mode before it goes on",
    )


@dataclass(frozen=True, slots=True)
class Voices:
    """The modes that can take turns in a model's answers.

    :param own: of the row's own model, by their names there; clean tokens stay in its cache.
    :param others: of the other model of a pair.
    """

    own: Mapping[str, Sampler]
    others: Mapping[str, Sampler]

    @classmethod
    def of(cls, spec: ModelSpec, known: Mapping[str, Sampler]) -> "Voices":
        """Those of a model."""
        found = {
            mode: known.get(spec.samplers.get(mode, mode)) for mode in spec.modes if mode not in (NAME, repair.NAME)
        }
        here = {mode: one for mode, one in found.items() if one is not None}
        own = {mode: one for mode, one in here.items() if mode not in spec.others and one.keeps_prefix}
        return cls(own, {mode: one for mode, one in here.items() if mode in spec.others})

    def sampler(self, mode: str, spec: ModelSpec) -> Sampler:
        """That of a mode in a plan.

        :raises OptionError: for one that cannot take turns.
        """
        found = self.own.get(mode) or self.others.get(mode)
        if found is None:
            names = ", ".join((*self.own, *self.others))
            raise OptionError(
                message(
                    "plan in {preset_options} has mode {!r}; those of {} that take turns: {}", mode, spec.name, names
                )
            )
        return found

    def plan(self, settings: AlternatingSettings, spec: ModelSpec) -> tuple[Turn, ...]:
        """The turns that were asked for, else one from left to right and one that denoises.

        :raises OptionError: where the model has only one of the two.
        """
        if settings.plan is not None:
            return settings.plan
        opens = self.onward
        fills = next(chain(self.others, (mode for mode, one in self.own.items() if not one.onward)), None)
        if opens is None or fills is None:
            raise OptionError(
                message("mode {!r} of {} needs two modes; give plan in {preset_options}", NAME, spec.name)
            )
        return (opens, OPENING), (fills, MIDDLE)

    @property
    def onward(self) -> str | None:
        """The first own mode that writes from left to right."""
        return next((mode for mode, one in self.own.items() if one.onward), None)

    def goes_on(self, turns: Sequence[Turn]) -> Turn:
        """Who writes in place of another: whoever does from left to right in the plan, or would."""
        known = next((turn for turn in turns if turn[0] in self.own and self.own[turn[0]].onward), None)
        return known or (self.onward or next(iter(self.own)), OPENING)


def start(known: Mapping[str, Sampler], canvas: Canvas, settings: AlternatingSettings, spec: ModelSpec) -> Program:
    """Turn after turn, until the answer ends."""
    row, voices = canvas.row, Voices.of(spec, known)
    writing, turns = Writing(canvas, spec), voices.plan(settings, spec)
    row.stretches, place, failed = [], 0, None
    while row.remaining:
        (mode, count), why = turns[place % len(turns)], "its turn in the plan"
        held = failed or _unsure(voices.sampler(mode, spec), writing.entropy, settings.most_entropy)
        if held is None:
            place += 1
        else:
            (mode, count), why = voices.goes_on(turns), held
        begin, model = len(row.tokens), spec.others[mode].name if mode in voices.others else spec.target or spec.name
        row.stretches.append(Stretch(model, mode, begin - row.prompt, begin - row.prompt, why))
        config, failed = config_of(row.config, voices.sampler(mode, spec), mode, min(count, row.remaining)), None
        if mode in voices.own:
            yield from writing.own(voices.own[mode], config)
            continue
        ended = yield from writing.guest(config)
        if ended == "eos":
            return
        failed = None if ended == "length" else f"{mode} of {model} has stopped: {ended}"


def _unsure(sampler: Sampler, entropy: float | None, most: float | None) -> str | None:
    """Why a turn is held back; None if it is not."""
    if sampler.onward or most is None or entropy is None or entropy <= most:
        return None
    return f"the token before had an entropy of {entropy:.3g} nats, above {most:g}"


def fit(known: Mapping[str, Sampler], settings: AlternatingSettings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse plans that cannot be followed, and options that none of their modes honours.

    :raises OptionError: naming what is wrong, and the remedy.
    """
    voices = Voices.of(spec, known)
    samplers = {mode: voices.sampler(mode, spec) for mode, _ in voices.plan(settings, spec)}
    honoured = frozenset[str]().union(*(sampler.options for sampler in samplers.values()))
    for option in config.given().keys() - COMMON_OPTIONS - honoured - {"preset_options"}:
        raise OptionError(
            message(
                "option {}={} has no effect on modes that take turns here: {}; leave it out or name others in plan of "
                "{preset_options}",
                Option(option),
                shown(getattr(config, option)),
                ", ".join(samplers),
            )
        )
    for mode, sampler in samplers.items():
        own = config_of(config, sampler, mode, config.max_new_tokens)
        sampler.check(own, spec.others.get(mode, spec))


def sampler(known: Mapping[str, Sampler]) -> Sampler:
    """It, with the modes that may take turns."""
    return Sampler(
        name=NAME,
        summary="modes, or the two models of a pair, in turns within one answer",
        source="planning by the one model and execution by the other, arXiv 2510.15244; the turns are ours",
        settings=AlternatingSettings,
        start=partial(start, known),
        unheld=None,
        keeps_prefix=True,
        fit=partial(fit, known),
    )
