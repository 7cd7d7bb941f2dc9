"""The contract of a reference sampler: a program that asks for passes and writes on a canvas.

A program is a generator. It yields a :class:`Pass`, is sent the logits of the positions
it wanted, writes tokens on its :class:`~dllm_plugins.samplers.canvas.Canvas` and says
which of them are final. So each family's sampler reads like the loop of its paper, while
the engine runs any number of them together, one pass at a time.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

from pydantic import ConfigDict
from pydantic import ValidationError
from torch import Tensor

from dllm_plugins.checked import Numbers
from dllm_plugins.checked import explain
from dllm_plugins.checked import takes
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.families.originals.table import answer
from dllm_plugins.prediction import Said
from dllm_plugins.said import said
from dllm_plugins.said import shown
from dllm_plugins.samplers.canvas import Canvas
from dllm_plugins.samplers.steps import Counts


class Settings(Numbers):
    """What a sampler can be told beside the common options; subclasses name and describe each.

    A field with the name of a SamplingConfig option is taken from there; the others are
    given in `preset_options`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(slots=True)
class Asked:
    """What a program would rather know of the last segment's wanted positions than their logits.

    :param places: these positions; each is drawn with its noise of the pass that answers.
    :param said: the answer, if the denoiser has one without logits (see :mod:`~dllm_plugins.unmasking`) and
        none of the tokens is the mask id; the logits sent for the segment are empty then.
    """

    places: Sequence[int]
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over one row.

    :param segments: what is forwarded; each is a call of its own unless it names an
        earlier one in `behind`.
    :param kind: what the pass counts as in the statistics.
    :param release: forget the held keys first.
    :param freeze: how many tokens of the first segment join the prefix afterwards.
    :param hold: indices into the first segment whose keys are held afterwards in place of
        those held so far; this is what makes a cache approximate.
    :param keep: how many tokens of the first segment of the pass before this one join the
        prefix first: for programs that know it only once they have read its logits.
    """

    segments: tuple[Segment, ...]
    kind: str = "predict"
    release: bool = False
    freeze: int = 0
    hold: Sequence[int] | None = None
    keep: int = 0
    asked: Asked | None = None


#: Yields passes; is sent, per segment, the logits [len(wanted), V].
Program: TypeAlias = Generator[Pass, list[Tensor], None]


def _no_check(config: SamplingConfig) -> None:
    """Nothing to add."""


def _fits(settings: Any, config: SamplingConfig, spec: ModelSpec) -> None:
    """Any model will do."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One family's way of decoding, as data and a program.

    :param name: what users ask for, as a mode of a request or a preset of a checkpoint.
    :param summary: one line for people.
    :param source: the code or paper it follows.
    :param settings: what it can be told.
    :param start: the program for one canvas.
    :param holes: whether open positions inside the prompt are filled.
    :param suffix: whether tokens behind the gap are used.
    :param truncates_greedy: top_k and top_p matter at temperature 0, too: they act on confidences.
    :param attention: general samplers: every checkpoint whose rows see one another so has it as a mode.
    :param shifted: those of `attention` that may be shifted, too; None for all.
    :param counts: what its option `steps` counts.
    :param check: refuses, with OptionError, what the settings cannot tell by themselves.
    :param fit: refuses, with OptionError, settings that do not fit the rest of the request or the model.
    """

    name: str
    summary: str
    source: str
    settings: type[Settings]
    start: Callable[[Canvas, Any, ModelSpec], Program]
    holes: bool = False
    suffix: bool = False
    truncates_greedy: bool = False
    attention: frozenset[str] = frozenset()
    shifted: frozenset[str] | None = None
    counts: Counts = Counts.ANYTHING
    check: Callable[[SamplingConfig], None] = _no_check
    fit: Callable[[Any, SamplingConfig, ModelSpec], None] = _fits

    @property
    def options(self) -> frozenset[str]:
        """The SamplingConfig options it honours beside the common ones."""
        return frozenset(self.settings.model_fields).intersection(SamplingConfig.model_fields) | {"preset_options"}

    def read(self, config: SamplingConfig, defaults: Mapping[str, Any] | None = None) -> Settings:
        """The settings of a request.

        :param defaults: what the checkpoint says where the request says nothing.
        :raises OptionError: for an option this sampler does not know, or a value out of range.
        """
        self.check(config)
        own = self.settings.model_fields
        inside = own.keys() - SamplingConfig.model_fields.keys()
        values = {name: value for name, value in {**(defaults or {}), **config.given()}.items() if name in own}
        for name, value in (config.preset_options or {}).items():
            if name not in inside:
                known = None if name in SamplingConfig.model_fields else answer(name, value, [self.name])
                if known is not None:
                    raise OptionError(said("{preset_options}: {}", known))
                raise OptionError(
                    said(
                        "{preset_options} has {}={}, which sampler {!r} does not take there; {}",
                        name,
                        shown(value),
                        self.name,
                        takes("preset_options", self.settings, inside),
                    )
                )
            values[name] = value
        try:
            return self.settings(**values)
        except ValidationError as error:
            raise OptionError(said("sampler {!r}: {}", self.name, explain(error, own))) from None
