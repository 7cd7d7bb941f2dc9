"""The strategy behind every reference sampler: it runs their programs, row by row."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dllm_plugins.canvas import Row
from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.failing import blaming
from dllm_plugins.prediction import Said
from dllm_plugins.said import said
from dllm_plugins.samplers.base import Asked
from dllm_plugins.samplers.base import Pass
from dllm_plugins.samplers.base import Program
from dllm_plugins.samplers.base import Sampler
from dllm_plugins.samplers.base import Settings
from dllm_plugins.samplers.canvas import Canvas
from dllm_plugins.samplers.ids import check_ids
from dllm_plugins.samplers.steps import passes_of_a_block
from dllm_plugins.strategies.base import Plan
from dllm_plugins.strategies.base import check_options


class Running:
    """A program under way: its canvas and the pass it asked for.

    From here on `steps` of the row's config are those of a block, where the sampler has blocks. They are what
    was asked for an answer of the asked length: where less of it fits into the context, the pace stays.
    """

    def __init__(self, sampler: Sampler, row: Row, spec: ModelSpec) -> None:
        settings = sampler.read(row.config, spec.sampling)
        asked = row.config.model_copy(update={"max_new_tokens": row.asked})
        steps = passes_of_a_block(sampler.counts, asked, _length(settings, spec))
        if steps != row.config.steps:
            row.config = row.config.model_copy(update={"steps": steps})
            settings = sampler.read(row.config, spec.sampling)
        self.canvas = Canvas(row, spec)
        self._program: Program = sampler.start(self.canvas, settings, spec)
        self.wanted: Pass = next(self._program)

    def tell(self, logits: list[Tensor]) -> None:
        """Hand the pass's logits over; the row is done if the program ends."""
        try:
            self.wanted = self._program.send(logits)
        except StopIteration:
            self.canvas.finish()


class SampledStrategy:
    """A mode that follows one :class:`~dllm_plugins.samplers.base.Sampler`."""

    keeps_prefix = False

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.name = sampler.name
        self.options = sampler.options
        self.holes = sampler.holes
        self.suffix = sampler.suffix

    def check(self, config: SamplingConfig, spec: ModelSpec) -> None:
        """See :class:`~dllm_plugins.strategies.base.Strategy`."""
        sampler = self.sampler
        name = f"{config.mode}, sampler {self.name}"
        check_options(name, config, self.options, truncates_greedy=sampler.truncates_greedy)
        settings = sampler.read(config, spec.sampling)
        passes_of_a_block(sampler.counts, config, _length(settings, spec))
        sampler.fit(settings, config, spec)
        check_ids(settings, spec)
        cache = getattr(settings, "approximate_cache", None)
        if cache is not None and not spec.holds:
            raise OptionError(said("{approximate_cache}={!r} does not fit {}; leave it out", cache, spec.name))
        if cache == "dual" and spec.holds_prefix_only:
            raise OptionError(
                said(
                    "{approximate_cache}={!r} does not fit {}, which cannot keep keys behind those it "
                    "computes anew; use 'prefix'",
                    cache,
                    spec.name,
                )
            )

    def _running(self, row: Row, spec: ModelSpec) -> Running:
        if row.rule_state is None:
            row.rule_state = Running(self.sampler, row, spec)
        running: Running = row.rule_state
        return running

    def plan(self, row: Row, spec: ModelSpec) -> Plan:
        """What the program asked for."""
        wanted = self._running(row, spec).wanted
        return Plan(wanted.segments, wanted.kind, wanted.release)

    def read(self, rows: Sequence[Row], hidden: Sequence[Sequence[Tensor]], denoiser: Denoiser) -> None:
        """Move each row's keys, then let its program go on to the next pass.

        Heads run row by row: a shared product would tie a row's last bits to its company.
        """
        for row, parts in zip(rows, hidden, strict=True):
            with blaming(row):
                self._go_on(row, parts, denoiser)

    def _go_on(self, row: Row, parts: Sequence[Tensor], denoiser: Denoiser) -> None:
        running = self._running(row, denoiser.spec)
        wanted = running.wanted
        if wanted.freeze:
            denoiser.freeze(row.handle, wanted.freeze)
            row.cache = row.cache or "exact"
        if wanted.hold is not None:
            denoiser.hold(row.handle, wanted.hold)
            row.cache = "approximate"
        running.tell(_heads(row, parts, wanted.asked, denoiser))
        if running.wanted.keep and running.wanted is not wanted:
            denoiser.freeze(row.handle, running.wanted.keep)

    def tentative(self, row: Row, spec: ModelSpec) -> tuple[int | None, ...]:
        """The canvas behind the final text, None where open."""
        return self._running(row, spec).canvas.tentative()


def _length(settings: Settings, spec: ModelSpec) -> int:
    """How many positions a block has."""
    return getattr(settings, "block_length", None) or spec.block_length


def _heads(row: Row, parts: Sequence[Tensor], asked: Asked | None, denoiser: Denoiser) -> list[Tensor]:
    """Logits of every segment; none of the last one if what is asked of it was said without."""
    straight: Any = getattr(denoiser, "unmask", None)
    if asked is None or straight is None:
        return [denoiser.logits(part) for part in parts]
    said: Said | None = straight(parts[-1], row.canvas_draws(asked.places))
    # The mask id counts among the probabilities but is never drawn: where it comes first, another has to be found.
    if said is None or bool((said.token == denoiser.spec.mask_id).any()):
        return [denoiser.logits(part) for part in parts]
    asked.said = said
    return [*(denoiser.logits(part) for part in parts[:-1]), parts[-1].new_empty(0)]
