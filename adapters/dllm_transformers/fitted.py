"""What of generate()'s options each mode is given: those that the user set, and what fits of those that he did not."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import LogitsProcessorList

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.pairs.model import PairModel
from dllm_plugins.sharing import SharedModel
from dllm_transformers.drawing import fitting
from dllm_transformers.drawing import warpers
from dllm_transformers.prefix import sampler_of
from dllm_transformers.processing import steered_by


@dataclass(frozen=True)
class Fitted:
    """Options of one mode.

    :param options: the engine's.
    :param processors: to call, in their order.
    """

    options: dict[str, Any]
    processors: list[Any]

    @cached_property
    def scoring(self) -> LogitsProcessorList:
        """What makes scores of logits; one and the same for all rows of the mode."""
        return LogitsProcessorList([*self.processors, *warpers(self.options)])


@dataclass(frozen=True, slots=True)
class GenerateArguments:
    """What generate() was given, by which every mode's share is told.

    :param asked: fields of the generation config that the user set.
    :param drawn: how tokens are drawn, as transformers merged it.
    :param plain: the strategy's own options.
    :param arrived: logits processors, those that transformers built and the user's; `own` the user's alone.
    :param built: whether transformers built some.
    """

    asked: Mapping[str, Any]
    drawn: Mapping[str, Any]
    plain: SamplingConfig
    arrived: Sequence[Any]
    own: Sequence[Any]
    built: bool

    def of(self, mode: str | None, shared: SharedModel) -> Fitted:
        """The share of a mode.

        :raises OptionError: for what the user set and the mode has no use for.
        """
        _check_ids(mode, shared)
        sampler, asked = sampler_of(shared, mode), dict(self.asked)
        options = self.plain.given() | {"mode": mode}
        drawn = fitting(dict(self.drawn), asked, options, sampler, shared.model.denoiser.spec)
        steered, processors = steered_by(asked, self.arrived, self.own, sampler, built=self.built)
        return Fitted(drawn | steered, processors)


def _check_ids(mode: str | None, shared: SharedModel) -> None:
    """Refuse answers in the ids of a pair's other model, where they are not those of the prompt.

    :raises OptionError: saying what answers in text.
    """
    model = shared.model
    if isinstance(model, PairModel) and mode in model.denoiser.spec.others and not model.one_tokenizer:
        raise OptionError(
            f"mode={mode!r} answers in ids of {model.denoiser.spec.others[str(mode)].name}, and generate() deals in "
            f"those of the model that verifies; use mode 'pair', 'ar' or 'alternating', or load_model(pair=...) of "
            f"dllm_plugins, whose answers are texts"
        )
