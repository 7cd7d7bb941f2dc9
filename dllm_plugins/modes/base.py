"""The contract of a mode: what it can be told, and the program that decodes one canvas.

See :mod:`~dllm_plugins.decoding.program` for what a program yields and is sent. It writes tokens on
its :class:`~dllm_plugins.decoding.canvas.Canvas` and says which of them are final.
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ConfigDict
from pydantic import ValidationError

from dllm_plugins.config import COMMON_OPTIONS
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import listed
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.modes.ids import check_ids
from dllm_plugins.modes.steps import Counts
from dllm_plugins.modes.steps import passes_of_a_block
from dllm_plugins.options.checked import Numbers
from dllm_plugins.options.checked import explain
from dllm_plugins.options.checked import takes
from dllm_plugins.options.originals.table import answer


class Settings(Numbers):
    """What a sampler can be told beside the common options; subclasses name and describe each.

    A field with the name of a SamplingConfig option is taken from there; the others are
    given in `preset_options`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def _no_check(config: SamplingConfig) -> None:
    """Nothing to add."""


def _own(_settings: Any, _config: SamplingConfig, _spec: ModelSpec) -> Hashable:
    """No other mode gives the same text."""
    return None


def _fits(settings: Any, config: SamplingConfig, spec: ModelSpec) -> None:
    """Any model will do."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One way of decoding, as data and a program.

    :param name: what users ask for, as a mode of a request or a preset of a checkpoint.
    :param summary: one line for people.
    :param source: the code or paper it follows.
    :param settings: what it can be told.
    :param start: the program for one canvas.
    :param holes: whether mask ids in a prompt without a template are gaps, which are filled by the way.
    :param suffix: whether it fills gaps: it leaves :attr:`Canvas.given` as it is, and sees what stands behind a gap.
    :param truncates_greedy: top_k and top_p matter at temperature 0, too: they act on confidences.
    :param attention: general samplers: every checkpoint whose rows see one another so has it as a mode.
    :param shifted: those of `attention` that may be shifted, too; None for all.
    :param counts: what its option `steps` counts.
    :param keeps_prefix: any first part of its rows' prefix serves later rows.
    :param keeps_blocks: whole blocks of its rows' prefix serve later rows, where blocks have the model's own length;
        they count from the beginning.
    :param unheld: why its answers cannot be held to a constraint; None if they can.
    :param elastic: of one whose gaps grow and shrink while they are filled, and can be held to constraints of their own
        all the same: gives the ids that make an open position two, and that take one out; refuses, with OptionError,
        settings that do not go with it.
    :param onward: it writes from left to right, so that logits can be changed by all that stands before a token.
    :param rereads: the model reads in a pass what it said in the one before, so that rounding grows from pass to pass;
        its prompts are not cut into slices.
    :param resumes: its program may also begin in the middle of an answer, behind text that is final.
    :param same_text: what its text depends on beside the request: modes for which it is equal give the same tokens, to
        the bit, whatever shares the passes; mode `auto` chooses the fastest of them. None if no other mode does.
    :param refuse: refuses, with OptionError, what the settings cannot tell by themselves.
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
    keeps_prefix: bool = False
    keeps_blocks: bool = False
    unheld: str | None = "it does not say that it can"
    elastic: Callable[[Any, ModelSpec], tuple[int, int]] | None = None
    onward: bool = False
    rereads: bool = False
    resumes: bool = False
    same_text: Callable[[Any, SamplingConfig, ModelSpec], Hashable] = _own
    refuse: Callable[[SamplingConfig], None] = _no_check
    fit: Callable[[Any, SamplingConfig, ModelSpec], None] = _fits

    @property
    def options(self) -> frozenset[str]:
        """The SamplingConfig options it honours beside the common ones."""
        own, common = self.settings.model_fields.keys(), SamplingConfig.model_fields.keys()
        return frozenset(own & common) | ({"preset_options"} if own - common else frozenset())

    def read(self, config: SamplingConfig, defaults: Mapping[str, Any] | None = None) -> Settings:
        """The settings of a request.

        :param defaults: what the checkpoint says where the request says nothing.
        :raises OptionError: for an option this sampler does not know, or a value out of range.
        """
        self.refuse(config)
        own = self.settings.model_fields
        inside = own.keys() - SamplingConfig.model_fields.keys()
        values = {name: value for name, value in {**(defaults or {}), **config.given()}.items() if name in own}
        for name, value in (config.preset_options or {}).items():
            if name not in inside:
                known = None if name in SamplingConfig.model_fields else answer(name, value, [self.name])
                if known is not None:
                    raise OptionError(message("{preset_options}: {}", known))
                raise OptionError(
                    message(
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
            raise OptionError(message("sampler {!r}: {}", self.name, explain(error, own))) from None

    def kept_unit(self, config: SamplingConfig, spec: ModelSpec) -> int | None:
        """Positions of a row's prefix serve later rows in multiples of so many; None if they do not."""
        if self.keeps_prefix:
            return 1
        length = spec.sampling.get("block_length") or spec.block_length
        own = self.keeps_blocks and spec.cache == "exact" and config.block_length in (None, length)
        return int(length) if own else None

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """Refuse options of a request that this mode would not honour.

        :raises OptionError: naming the option and the remedy.
        """
        name = self.name if config.mode in (None, self.name) else f"{config.mode}, sampler {self.name}"
        check_options(name, config, self.options, truncates_greedy=self.truncates_greedy)
        settings = self.read(config, spec.sampling)
        passes_of_a_block(self.counts, config, _length(settings, spec))
        self.fit(settings, config, spec)
        check_ids(settings, spec)
        _check_cache(getattr(settings, "approximate_cache", None), spec)

    def program(self, canvas: Canvas, spec: ModelSpec) -> Program:
        """Decodes one canvas as its request says.

        From here on `steps` of the row's config are those of a block, where the sampler has blocks. They are what
        was asked for an answer of the asked length: where less of it fits into the context, the pace stays.
        """
        row = canvas.row
        settings = self.read(row.config, spec.sampling)
        config = row.config.model_copy(update={"max_new_tokens": row.requested})
        steps = passes_of_a_block(self.counts, config, _length(settings, spec))
        if steps != row.config.steps:
            row.config = row.config.model_copy(update={"steps": steps})
            settings = self.read(row.config, spec.sampling)
        canvas.fill()
        if canvas.row.limits is not None and not canvas.open(range(canvas.prompt, canvas.end)):
            # There is nothing to decide, but a program begins with a pass.
            canvas.reopen(canvas.end - 1)
        return self.start(canvas, settings, spec)

    def resume(self, canvas: Canvas, spec: ModelSpec) -> Program:
        """Decodes on behind final text that another mode has written."""
        assert self.resumes, "nobody else's program is stopped in the middle for it"
        return self.start(canvas, self.read(canvas.row.config, spec.sampling), spec)


def _length(settings: Settings, spec: ModelSpec) -> int:
    """How many positions a block has."""
    return getattr(settings, "block_length", None) or spec.block_length


def _check_cache(cache: str | None, spec: ModelSpec) -> None:
    if cache is not None and not spec.holds:
        raise OptionError(message("{approximate_cache}={!r} does not fit {}; leave it out", cache, spec.name))
    if cache == "dual" and spec.holds_prefix_only:
        raise OptionError(
            message(
                "{approximate_cache}={!r} does not fit {}, which cannot keep keys behind those it computes anew; "
                "use 'prefix'",
                cache,
                spec.name,
            )
        )


def check_options(
    name: str, config: SamplingConfig, honoured: frozenset[str], *, truncates_greedy: bool = False
) -> None:
    """Refuse options that neither every mode nor this one honours.

    :param truncates_greedy: top_k and top_p matter at temperature 0, too.
    :raises OptionError: naming the option and the remedy.
    """
    for option, value in config.given().items():
        if option not in COMMON_OPTIONS and option not in honoured:
            raise OptionError(
                message(
                    "option {}={} has no effect in mode {!r} (options of this mode: {}); leave it out or "
                    "choose another mode",
                    Option(option),
                    shown(value),
                    name,
                    listed(honoured),
                )
            )
    if not truncates_greedy:
        config.check_sampling()
