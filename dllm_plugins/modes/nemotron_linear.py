"""Nemotron-Labs-Diffusion's linear speculation: the diffusion drafts, a causal pass verifies.

Source: the checkpoints' modelling file, `linear_spec_generate`. Both passes run on the
same weights (an adapter for the drafts is left out). A draft is accepted while it equals
the token that autoregression draws there, with noise keyed on the position, so the text
is that of `nemotron_ar` at any temperature. The keys of what was accepted are those of
the verifying pass.

The reference's budget for thinking is a defect: it puts `end_think_token_id` into the
context in place of the last accepted token, but returns that one, and so again in every
round. Here the text holds what the model was shown; `show_replaced` does as the reference.
"""

from dataclasses import replace

from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.choosing import at_least
from dllm_plugins.modes.drawing import draw_tokens
from dllm_plugins.modes.drawing import extend
from dllm_plugins.modes.nemotron import SOURCE
from dllm_plugins.modes.nemotron import NemotronArSettings
from dllm_plugins.modes.nemotron import fit
from dllm_plugins.modes.nemotron import next_token
from dllm_plugins.prediction import distribution


class NemotronLinearSettings(NemotronArSettings):
    """Options of the linear speculation."""

    block_length: int | None = Field(None, description="positions drafted and verified together")
    threshold: float | None = Field(
        None, description="draft in several passes, each committing all at least this probable; in one if not given"
    )
    show_replaced: bool = Field(
        default=False, description="show the token that the end of thinking replaced, as the reference"
    )

    @model_validator(mode="after")
    def _only_with_a_budget(self) -> "NemotronLinearSettings":
        if self.show_replaced and self.max_thinking_tokens is None:
            raise ValueError("show_replaced has no effect without max_thinking_tokens; leave it out")
        return self


class _Round:
    """A block whose first token is known, and how much of the pass before it is cached."""

    def __init__(self, canvas: Canvas, first: int, length: int, keep: int) -> None:
        self.canvas = canvas
        self.block = range(first, first + length)
        self.keep = keep

    def forward(self, positions: list[int], *, causal: bool) -> Dialogue[Tensor]:
        """Logits [len(positions), V]; the round's first pass keeps what the last one accepted."""
        segment = self.canvas.part(self.block, positions, causal=causal)
        keep, self.keep = self.keep, 0
        # Autoregressive rows speak of the position behind their own.
        ask = replace(LOGITS, positions=[position + causal for position in positions], onward=causal)
        return (yield Pass((segment,), "verify" if causal else "draft", keep=keep, asks=(ask,)))[0].logits

    def draft(self, threshold: float | None) -> Program:
        """Fill the block."""
        canvas = self.canvas
        extend(canvas, self.block.stop)
        while positions := canvas.open(self.block):
            logits = yield from self.forward(positions, causal=False)
            draws = canvas.row.draws(positions)
            tokens = draw_tokens(canvas, logits, draws)
            sure = distribution(logits, draws).gather(1, tokens[:, None])[:, 0]
            for index in range(len(positions)) if threshold is None else at_least(sure, threshold):
                canvas.write(positions[index], int(tokens[index]))

    def verify(self) -> Dialogue[tuple[list[int], Tensor]]:
        """The drafts that autoregression would have drawn, and one token more; logits [length, V]."""
        canvas, block = self.canvas, self.block
        logits = yield from self.forward(list(block), causal=True)
        drawn = draw_tokens(canvas, logits, canvas.row.draws([position + 1 for position in block])).tolist()
        count = 1
        while count < len(block) and drawn[count - 1] == canvas.tokens[block.start + count]:
            count += 1
        return drawn[:count], logits


def _accept(canvas: Canvas, first: int, tokens: list[int], logits: Tensor) -> bool:
    """Write what was accepted behind `first`, up to a stop id; whether there is one."""
    stop = next((index + 1 for index, token in enumerate(tokens) if token in canvas.row.stop_ids), None)
    del canvas.tokens[first + 1 :]
    extend(canvas, first + 1 + len(tokens[:stop]))
    for index, token in enumerate(tokens[:stop]):
        canvas.write(first + 1 + index, token, logits[index])
    return stop is not None


def start(canvas: Canvas, settings: NemotronLinearSettings, spec: ModelSpec) -> Program:
    """Round after round; the last one may end behind the answer's end."""
    length, first, keep = settings.block_length or spec.block_length, canvas.prompt, 0
    shown: int | None = None
    del canvas.tokens[first:]
    token, seed_logits = yield from next_token(canvas, 0, first, "prefill")
    extend(canvas, first + 1)
    canvas.write(first, token, seed_logits)
    canvas.release(first + 1)
    ended = token in canvas.row.stop_ids
    while not ended and first + 1 < canvas.end:
        round_ = _Round(canvas, first, length, keep)
        yield from round_.draft(settings.threshold)
        tokens, logits = yield from round_.verify()
        if shown is not None:
            canvas.tokens[first] = shown
        ended, first, keep, shown = _accept(canvas, first, tokens, logits), first + len(tokens), len(tokens), None
        answer = canvas.tokens[canvas.prompt :]
        overdue = settings.overdue(answer, len(answer)) if not ended and first + 1 < canvas.end else None
        if overdue is not None:
            if settings.show_replaced:
                # Only for the passes: the word that it replaces is what was drawn, and what is handed out.
                shown, canvas.tokens[first] = canvas.tokens[first], overdue
            else:
                canvas.write(first, overdue)
        canvas.release(len(canvas.tokens) - (shown is not None))


SAMPLER = Sampler(
    name="nemotron_speculative",
    summary="diffusion drafts, verified autoregressively: the text of nemotron_ar",
    source=f"{SOURCE} linear_spec_generate",
    settings=NemotronLinearSettings,
    start=start,
    unheld=None,
    fit=fit,
)
