"""dllm's sampler for masked diffusion models (MDLM): Tiny-A2D and BERT-chat.

Source: ZHZisZZ/dllm ca176752 `dllm/core/samplers/mdlm.py` and `core/schedulers/alpha.py`.
Like LLaDA's, but how many positions a pass commits follows a noise schedule alpha: at
time t a token is open with probability 1 - alpha(t), so of those open at t a share of
1 - (1 - alpha(s)) / (1 - alpha(t)) is committed on the way to s < t. Passes that would
commit nothing are left out.
"""

import math
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.choosing import spread
from dllm_plugins.modes.drawing import ask
from dllm_plugins.modes.drawing import drawn
from dllm_plugins.modes.ids import TokenIds
from dllm_plugins.modes.llada import blocks_of
from dllm_plugins.modes.llada import confidence
from dllm_plugins.modes.steps import Counts
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.prediction import without

_ALPHA: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda time: 1 - time,
    "cosine": lambda time: 1 - torch.cos((math.pi / 2) * (1 - time)),
}


class TransferSettings(Settings):
    """Options that dllm's two samplers share."""

    block_length: int | None = Field(None, description="positions denoised together")
    steps: int | None = Field(
        None, description="passes of the whole answer, as many for each block at most; one per position if not given"
    )
    guidance: float | None = Field(None, gt=0.0, description="classifier-free guidance; doubles the rows")
    cfg_keep_tokens: TokenIds = Field((), description="prompt ids that guidance does not hide")
    remasking: Literal["low_confidence", "random"] = Field(
        "low_confidence", description="which open positions a pass commits"
    )
    scheduler: Literal["linear", "cosine"] = Field("linear", description="noise schedule, which says how many")
    stochastic_transfer: bool = Field(default=False, description="draw how many from a binomial distribution")
    right_shift_logits: bool = Field(default=False, description="the row at p - 1 predicts position p")

    @model_validator(mode="after")
    def _kept_is_used(self) -> "TransferSettings":
        if self.cfg_keep_tokens and self.guidance is None:
            raise ValueError(f"cfg_keep_tokens={self.cfg_keep_tokens} has no effect without guidance; set it")
        return self


class MdlmSettings(TransferSettings, WholeCanvasSettings):
    """Options of the MDLM sampler."""

    suppress_tokens: TokenIds = Field((), description="ids never drawn")
    begin_suppress_tokens: TokenIds = Field((), description="ids committed last: they have no confidence")

    @model_validator(mode="after")
    def _confidence_is_used(self) -> "MdlmSettings":
        if self.begin_suppress_tokens and self.remasking == "random":
            raise ValueError(
                f"begin_suppress_tokens={self.begin_suppress_tokens} does nothing with remasking='random'; drop one"
            )
        return self


def share(scheduler: str, step: int, steps: int) -> float:
    """The share of what is open that a step commits; the schedule is float32, the rest float64."""
    alpha = _ALPHA[scheduler]
    before, after = (torch.tensor((steps - done) / steps, dtype=torch.float32) for done in (step, step + 1))
    return 1 - float((1 - alpha(after)) / (1 - alpha(before)))


def transfers(canvas: Canvas, block: range, steps: int, settings: TransferSettings) -> list[int]:
    """How many open positions of the block each pass commits, rounded half to even, at least one."""
    left, found = len(canvas.open(block)), []
    for step in range(steps):
        part = share(settings.scheduler, step, steps)
        if settings.stochastic_transfer:
            luck = canvas.row.noise.uniform(Key(Purpose.TRANSFER_COUNT, block.start, step), left)
            count = int((luck < part).sum())
        else:
            count = min(round(left * part), left)
        left -= count
        found.append(count)
    return [count for count in found if count]


def passes_over(
    canvas: Canvas, block: range, steps: int, settings: TransferSettings
) -> Iterator[tuple[list[int], int]]:
    """What is open in each pass over a block, and how many of these positions it commits.

    A constraint may fill positions between the passes; they end when nothing is left.
    """
    for count in transfers(canvas, block, steps, settings):
        positions = canvas.open(block)
        if not positions:
            return
        yield positions, min(count, len(positions))


def ask_for(canvas: Canvas, positions: list[int], settings: TransferSettings) -> Ask:
    """What :func:`commit` needs: tokens, or logits where they are changed first."""
    own = isinstance(settings, MdlmSettings) and (settings.suppress_tokens or settings.begin_suppress_tokens)
    return LOGITS if own or settings.guidance is not None else ask(canvas, positions)


def commit(
    canvas: Canvas,
    positions: list[int],
    span: range,
    answer: Answer,
    count: int,
    settings: TransferSettings,
) -> None:
    """Draw at each open position of `span`, never the mask, unless that is done, and write the `count` best."""
    row, late = canvas.row, getattr(settings, "begin_suppress_tokens", ())
    if not answer.drawn:
        answer = drawn(canvas, answer.logits, positions)
    if settings.remasking == "random":
        sure = torch.cat(
            [row.noise.uniform(Key(Purpose.TRANSFER_ORDER, position, row.step), 1) for position in positions]
        )
    elif late:
        sure = confidence(answer.logits, answer.token, late, answer.logits.dtype)
    else:
        sure = answer.coarse_probability()
    for number in torch.topk(spread(sure, positions, span), count).indices.tolist():
        index = positions.index(span[number])
        canvas.write(positions[index], answer.tokens[index], answer.source(index))


def blind(canvas: Canvas, segment: Segment, keep: tuple[int, ...]) -> Segment:
    """The same without what was given: the prompt and what lies behind the gap."""
    hidden = [
        canvas.mask if (position < canvas.prompt or position in canvas.given) and token not in keep else token
        for position, token in zip(segment.positions, segment.tokens, strict=True)
    ]
    return replace(segment, tokens=hidden)


class _MdlmCanvas(WholeCanvas):
    def __init__(self, canvas: Canvas, spec: ModelSpec, settings: MdlmSettings) -> None:
        super().__init__(canvas, spec, settings)
        self.shift = int(spec.shifted or settings.right_shift_logits)
        self._keep = settings.cfg_keep_tokens

    def _blind(self, whole: Segment) -> Segment:
        return blind(self.canvas, whole, self._keep)


def start(canvas: Canvas, settings: MdlmSettings, spec: ModelSpec) -> Program:
    """Block after block, each in as many passes as its schedule has."""
    view, length = _MdlmCanvas(canvas, spec, settings), settings.block_length or spec.block_length
    for block in blocks_of(canvas, length):
        for positions, count in passes_over(canvas, block, settings.steps or length, settings):
            answer = yield from view.forward(positions, block, ask_for(canvas, positions, settings))
            if settings.suppress_tokens:
                answer = of_logits(without(answer.logits, settings.suppress_tokens))
            commit(canvas, positions, range(len(canvas.tokens)), answer, count, settings)
            canvas.release_committed()


SAMPLER = Sampler(
    name="mdlm",
    summary="semi-autoregressive blocks, as many positions a pass as a noise schedule says",
    source="ZHZisZZ/dllm ca176752 dllm/core/samplers/mdlm.py (arXiv 2406.07524)",
    settings=MdlmSettings,
    start=start,
    unheld=None,
    suffix=True,
    counts=Counts.ANSWER_AT_MOST,
)
