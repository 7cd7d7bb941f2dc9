"""Nemotron-Labs-Diffusion's block diffusion and its plain autoregression, on one set of weights.

Source: the checkpoints' modelling file, `generate` and `ar_generate`. Prompt and finished
blocks are causal, the block being denoised sees them and all of itself. A causal pass
over what is finished gives each block its first token; the others are committed one a
pass, or all that reach a threshold. With `causal_context=False` the prompt and every
block see themselves both ways, and no token is given beforehand.
"""

from dataclasses import replace

from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Dialogue
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.base import Settings
from dllm_plugins.modes.choosing import at_least
from dllm_plugins.modes.drawing import draw_open
from dllm_plugins.modes.drawing import draw_tokens
from dllm_plugins.modes.drawing import extend
from dllm_plugins.modes.ids import TokenId
from dllm_plugins.prediction import probability_of

SOURCE = "nvidia/Nemotron-Labs-Diffusion modeling_nemotron_labs_diffusion.py"


class NemotronArSettings(Settings):
    """Options of all three modes."""

    max_thinking_tokens: int | None = Field(None, ge=0, description="tokens after which thinking is ended")
    end_think_token_id: TokenId = Field(None, description="the id that ends thinking")

    @model_validator(mode="after")
    def _both(self) -> "NemotronArSettings":
        if (self.max_thinking_tokens is None) != (self.end_think_token_id is None):
            raise ValueError(
                f"max_thinking_tokens={self.max_thinking_tokens} and end_think_token_id={self.end_think_token_id} "
                f"work together only; give both or neither"
            )
        return self

    def overdue(self, answer: list[int], length: int) -> int | None:
        """The id that must end the thinking by now, if the answer exceeds the budget without it."""
        if self.max_thinking_tokens is None or length <= self.max_thinking_tokens:
            return None
        return None if self.end_think_token_id in answer else self.end_think_token_id


class NemotronSettings(NemotronArSettings):
    """Options of the block diffusion."""

    block_length: int | None = Field(None, description="positions denoised together")
    threshold: float | None = Field(None, description="commit all at least this probable; one a pass if not given")
    causal_context: bool = Field(default=True, description="encode finished text causally, and seed each block from it")


def fit(settings: NemotronArSettings, _config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse an id that is no word of the model.

    :raises OptionError: naming it and the range.
    """
    found = settings.end_think_token_id
    if found is not None and (found >= spec.vocabulary or found == spec.mask_id):
        raise OptionError(
            f"end_think_token_id={found} is not a token of {spec.name}; give an id below {spec.vocabulary} other "
            f"than the mask id {spec.mask_id}"
        )


def next_token(canvas: Canvas, begin: int, end: int, kind: str) -> Dialogue[tuple[int, Tensor]]:
    """The token at `end` and its logits [V], after a causal pass that caches what stands from `begin` on."""
    segment = canvas.part(range(begin, end), [end - 1], causal=True)
    ask = replace(LOGITS, positions=[end])
    logits = (yield Pass((segment,), kind if begin else "prefill", freeze=end - begin, asks=(ask,)))[0].logits
    return int(draw_tokens(canvas, logits, [canvas.row.draw(end)])[0]), logits[0]


def _denoise(canvas: Canvas, block: range, begin: int, groups: list[int], threshold: float | None) -> Dialogue[int]:
    """Passes until the block is full; returns where the cache ends."""
    while positions := canvas.open(block):
        segment = canvas.part(range(begin, block.stop), positions, groups=groups[begin : block.stop])
        logits = (yield Pass((segment,), "predict" if begin else "prefill", freeze=block.start - begin))[0].logits
        begin = block.start
        tokens = draw_open(canvas, logits, positions)
        for index in at_least(probability_of(logits, tokens), threshold):
            canvas.write(positions[index], int(tokens[index]), logits[index])
        canvas.release_committed()
    canvas.release_committed()
    return begin


def start(canvas: Canvas, settings: NemotronSettings, spec: ModelSpec) -> Program:
    """Block after block from the end of the prompt."""
    length, begin, groups = settings.block_length or spec.block_length, 0, [0] * canvas.prompt
    for position in range(canvas.prompt, canvas.end, length):
        groups += [len(groups)] * length
        if settings.causal_context:
            token, logits = yield from next_token(canvas, begin, position, "commit")
            begin = position
            canvas.write(position, token, logits)
        extend(canvas, position + length)
        answered = position - canvas.prompt
        overdue = settings.overdue(canvas.tokens[canvas.prompt : position], answered + length)
        if overdue is not None:
            if position > begin:
                # What ends the thinking stands there before any other word of its block.
                finished = canvas.part(range(begin, position), groups=groups[begin:position])
                yield Pass((finished,), "commit" if begin else "prefill", freeze=position - begin, asks=())
                begin = position
            canvas.write(position + max(0, (settings.max_thinking_tokens or 0) - answered), overdue)
        begin = yield from _denoise(canvas, range(position, position + length), begin, groups, settings.threshold)


def start_ar(canvas: Canvas, settings: NemotronArSettings, _spec: ModelSpec) -> Program:
    """One token a pass."""
    begin = 0
    for position in range(canvas.prompt, canvas.end):
        token, logits = yield from next_token(canvas, begin, position, "ar")
        begin, answer = position, canvas.tokens[canvas.prompt : position]
        overdue = settings.overdue(answer, len(answer) + 1)
        if overdue is None:
            canvas.write(position, token, logits)
        else:
            canvas.write(position, overdue)
        canvas.release(position + 1)


SAMPLER = Sampler(
    name="nemotron",
    summary="bidirectional blocks behind causal text, each begun autoregressively",
    source=f"{SOURCE} generate",
    settings=NemotronSettings,
    start=start,
    unheld=None,
    fit=fit,
)
AR = Sampler(
    name="nemotron_ar",
    summary="causal, one token a pass",
    source=f"{SOURCE} ar_generate",
    settings=NemotronArSettings,
    start=start_ar,
    unheld=None,
    fit=fit,
)
