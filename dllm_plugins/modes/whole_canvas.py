"""What a bidirectional model says at open positions: from the whole canvas, or from an approximate cache.

Prefix and dual caching after Fast-dLLM (arXiv 2505.22618): a block's first pass forwards
everything; the next ones forward the block and what lies behind it (prefix), or the
block alone (dual), against the keys that pass left. Those keys go stale as the canvas is
filled in: approximate, until the next full pass. Every row holds its own keys, at their
own positions, so prompts of a batch may have any lengths.

Guidance after arXiv 2207.12598: a second copy of the sequence, its prompt masked, and
logits = unconditional + (guidance + 1) * (conditional - unconditional).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from pydantic import model_validator

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import UNLIMITED
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Settings


class WholeCanvasSettings(Settings):
    """Options of every sampler that looks at the whole canvas."""

    approximate_cache: Literal["prefix", "dual"] | None = Field(None, description="keep stale keys between passes")
    refresh: int | None = Field(None, ge=1, description="with a cache: a full pass at least every n passes")
    guidance: float | None = Field(None, gt=0.0, description="classifier-free guidance; doubles the rows")

    @model_validator(mode="after")
    def _fit(self) -> "WholeCanvasSettings":
        if self.refresh is not None and self.approximate_cache is None:
            raise ValueError(
                f"refresh={self.refresh} has no effect without approximate_cache; set it to prefix or dual"
            )
        if self.guidance is not None and self.approximate_cache is not None:
            raise ValueError(
                f"guidance={self.guidance} needs whole passes; leave approximate_cache={self.approximate_cache!r} out"
            )
        return self


class WholeCanvas:
    """Looks at one canvas, pass after pass."""

    def __init__(self, canvas: Canvas, spec: ModelSpec, settings: WholeCanvasSettings | None = None) -> None:
        self.canvas = canvas
        self.shift = int(spec.shifted)
        self.settings = settings or WholeCanvasSettings.model_validate({})
        self._block = range(0)
        self._cached = 0

    def forward(self, positions: Sequence[int], block: range, ask: Ask = LOGITS) -> Dialogue[Answer]:
        """What is said at these positions of the block that is denoised now.

        :param ask: what is wanted of all `positions`; guidance gives logits only.
        """
        wanted, ask = [max(position - self.shift, 0) for position in positions], replace(ask, positions=positions)
        if self.settings.approximate_cache is None:
            whole = self.canvas.whole(wanted)
            if self.settings.guidance is None:
                return (yield Pass((whole,), asks=(ask,)))[0]
            asks = (UNLIMITED, replace(UNLIMITED, of=1))
            conditional, blind = yield Pass((whole, self._blind(whole)), asks=asks)
            guided = blind.logits + (self.settings.guidance + 1) * (conditional.logits - blind.logits)
            return of_logits(self.canvas.held(positions, guided))
        return (yield replace(self._cached_pass(wanted, block), asks=(ask,)))[0]

    def _blind(self, whole: Segment) -> Segment:
        """The same with its prompt masked."""
        prompt = self.canvas.prompt
        return replace(whole, tokens=[*[self.canvas.mask] * prompt, *whole.tokens[prompt:]])

    def _cached_pass(self, wanted: Sequence[int], block: range) -> Pass:
        begin, length = max(block.start - self.shift, 0), len(self.canvas.tokens)
        active = range(begin, length if self.settings.approximate_cache == "prefix" else block.stop)
        refresh = self.settings.refresh
        if block != self._block or (refresh is not None and self._cached + 1 >= refresh):
            self._block, self._cached = block, 0
            outside = [*range(active.start), *range(active.stop, length)]
            return Pass((self.canvas.whole(wanted),), "refresh", release=True, hold=outside)
        self._cached += 1
        return Pass((self.canvas.part(active, wanted),))
