"""S2D2: a block-diffusion model drafts a block, and the same weights at block size one verify it.

In blocks of one position a block-causal model is autoregressive: an open position sees the final text, each token of
which has seen what is left of it, and itself. `s2d2_ar` decodes so, one token a pass. `s2d2` gives the same text in
fewer passes. A pass that says the next token also has a whole block denoised, behind the same text; the next pass holds
these drafts as text, and for each of them an open position in its place, which sees the text before it. Drafts are
accepted while they equal what these positions draw, with noise keyed on the position (S2D2, arXiv 2603.25702; how a
pass is laid out and that every draft is verified are ours: the paper's policy of when to verify would change the text).
"""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import frontier
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings

#: Drafts that are verified in a pass where each has a call of its own, whose rows grow with the square.
_CHAIN = 8


class S2d2Settings(Settings):
    """Options of S2D2."""

    block_length: int | None = Field(None, ge=2, description="positions drafted together")


class _Verified:
    """One row; the text up to `frozen` is cached, each token knowing what is left of it."""

    def __init__(self, canvas: Canvas, spec: ModelSpec) -> None:
        self.canvas = canvas
        self.row = canvas.row
        self.mask = spec.mask_id
        self.apart = spec.numerics.startswith("row-invariant")
        self.frozen = canvas.row.frozen
        self.keep = 0
        self.row.drafts = dict.fromkeys(("denoiser_verified", "denoiser_accepted", "open_rows"), 0)

    def next(self, kind: str, size: int) -> Dialogue[list[int]]:
        """One token more, and drafts of what follows it, made behind the text as it was.

        :param size: positions of the block that is drafted; below 2 there is none.
        """
        row, end = self.row, len(self.row.tokens)
        text, count = self._text(), end - self.frozen
        block = range(end, end + size) if size > 1 else range(0)
        segments = [text, self._open(range(end, end + 1), count), *([self._open(block, count)] if block else ())]
        asks = [replace(frontier(row), of=1)]
        # What a constraint allows is asked of the drafts later, and of the positions that verify them.
        asks += [Ask(of=2, draws=lambda: row.draws(block), positions=())] if block else []
        said, *drafted = yield Pass(tuple(segments), kind, keep=self.keep, freeze=count, asks=tuple(asks))
        self.keep, self.frozen = 0, end
        self._count(open_rows=len(block))
        self.canvas.append(said, 1)
        self.canvas.extend()
        return drafted[0].tokens[len(row.tokens) - end :] if drafted else []

    def verify(self, drafts: Sequence[int]) -> Program:
        """Take over the drafts that equal what is said in their place, and the token behind them."""
        canvas, end = self.canvas, len(self.row.tokens)
        canvas.tokens[end:] = drafts
        count = end - self.frozen
        segments, opened = self._apart(drafts) if self.apart else self._beside(drafts)
        # One position after the other, so that all are drawn at once.
        asks = tuple(Ask(of=place, positions=()) for place in opened)
        answers: list[Answer] = yield Pass(tuple(segments), "verify", keep=self.keep, asks=asks)
        hidden = torch.cat([answer.hidden for answer in answers])
        [said] = yield (replace(frontier(self.row, len(drafts)), of=hidden),)
        right = [draft == token for draft, token in zip(drafts, said.tokens, strict=False)]
        accepted = (*right, False).index(False)
        self._count(denoiser_verified=len(drafts), denoiser_accepted=accepted)
        canvas.append(said, accepted + 1)
        canvas.extend()
        self.keep = count + accepted
        self.frozen += self.keep

    def _beside(self, drafts: Sequence[int]) -> tuple[list[Segment], Sequence[int]]:
        """All in one call, and which segments are open, in the order of their places."""
        end, count = len(self.row.tokens), len(self.row.tokens) - self.frozen
        places = range(len(drafts) + 1)
        opened = [self._open(range(end + place, end + place + 1), count + place) for place in places]
        return [self._text(), *opened], range(1, len(opened) + 1)

    def _apart(self, drafts: Sequence[int]) -> tuple[list[Segment], Sequence[int]]:
        """The same in a call for each place, as if nothing stood behind it: not even the order of keys differs then."""
        end, text, segments = len(self.row.tokens), self._text(), list[Segment]()
        # The whole text comes first: its keys are kept.
        for place in reversed(range(len(drafts) + 1)):
            count = end - self.frozen + place
            part = replace(text, tokens=text.tokens[:count], positions=text.positions[:count])
            opened = self._open(range(end + place, end + place + 1), count, len(segments))
            segments += [part, opened]
        return segments, range(len(segments) - 1, 0, -2)

    def possible(self, drafts: Sequence[int]) -> list[int]:
        """Drafts that there is room for, up to the first that a constraint refuses."""
        most = min(self.row.remaining - 1, _CHAIN if self.apart else len(drafts))
        kept, limits, end = list(drafts)[: max(0, most)], self.row.limits, len(self.row.tokens)
        if limits is None or not kept:
            return kept
        allowed = limits.next_masks([*self.row.tokens, *kept], range(end, end + len(kept)))
        return kept[: next((place for place, mask in enumerate(allowed) if not mask[kept[place]]), len(kept))]

    def _text(self) -> Segment:
        """What is not cached yet, and drafts."""
        tokens = self.canvas.tokens[self.frozen :]
        return Segment(self.row.handle, tokens, range(self.frozen, self.frozen + len(tokens)))

    def _open(self, positions: range, count: int, of: int = 0) -> Segment:
        """Open positions behind so many tokens of a segment."""
        return self.canvas.noisy([self.mask] * len(positions), positions, ((of, count),))

    def _count(self, **numbers: int) -> None:
        assert self.row.drafts is not None, "set at the beginning"
        for name, number in numbers.items():
            self.row.drafts[name] += number


def start(canvas: Canvas, settings: S2d2Settings, spec: ModelSpec) -> Program:
    """A token and drafts, then their verification, in turns."""
    canvas.cut(canvas.row.prompt)
    canvas.extend()
    this, kind = _Verified(canvas, spec), "prefill"
    while True:
        size = min(settings.block_length or max(2, spec.block_length), canvas.row.remaining)
        drafts = this.possible((yield from this.next(kind, size)))
        kind = "predict"
        if drafts:
            yield from this.verify(drafts)


def start_ar(canvas: Canvas, _settings: Settings, spec: ModelSpec) -> Program:
    """One token a pass."""
    canvas.cut(canvas.row.prompt)
    canvas.extend()
    this, kind = _Verified(canvas, spec), "prefill"
    while True:
        yield from this.next(kind, 0)
        kind = "predict"


def same_text(_settings: Settings, _config: SamplingConfig, spec: ModelSpec) -> Hashable:
    """That of blocks of one position, where a position's bits do not depend on how many rows there are."""
    return "blocks of one" if spec.numerics.startswith("row-invariant") else None


def _sampler(name: str, summary: str, settings: type[Settings], program: Callable[..., Program]) -> Sampler:
    return Sampler(
        name=name,
        summary=summary,
        source="S2D2, arXiv 2603.25702; the layout is ours",
        settings=settings,
        start=program,
        unheld=None,
        onward=True,
        attention=frozenset({"block-causal"}),
        shifted=frozenset(),
        same_text=same_text,
    )


SAMPLERS = (
    _sampler("s2d2", "lossless: the block model drafts, its weights at block size one verify", S2d2Settings, start),
    _sampler("s2d2_ar", "blocks of one position: a block-causal model as an autoregressive one", Settings, start_ar),
)
