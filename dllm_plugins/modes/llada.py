"""LLaDA's sampler (arXiv 2502.09992) and Fast-dLLM's on top of it (arXiv 2505.22618).

Source: ML-GSAI/LLaDA b7e6c35 `generate.py`; NVlabs/Fast-dLLM 24cc59e `llada/generate.py`.
Blocks are denoised left to right, each until nothing of it is open; a commit rule decides
what a pass commits. LLaDA's confidence is a softmax in the logits' own dtype, Fast-dLLM's
one in float64.
"""

from collections.abc import Hashable
from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import LOGITS
from dllm_plugins.decoding.program import Program
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.ids import TokenIds
from dllm_plugins.modes.ruled import Ruled
from dllm_plugins.modes.ruled import RuledSettings
from dllm_plugins.modes.slow_text import slow_text
from dllm_plugins.modes.steps import Counts
from dllm_plugins.modes.steps import passes_of_a_block
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings
from dllm_plugins.prediction import probability_of
from dllm_plugins.prediction import without
from dllm_plugins.rules.at_work import Rules
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.rules.base import RevocationRule

#: Where `steps` are given, no rule means this one.
_QUOTA = (None, "quota")


class LladaSettings(WholeCanvasSettings, RuledSettings):
    """Options of LLaDA's sampler."""

    steps: int | None = Field(
        None,
        description="passes of the whole answer, as many for each block (rules quota, random, margin, position_aware)",
    )
    suppress_tokens: TokenIds = Field((), description="ids never drawn (`logits_eos_inf` lists the end of text)")
    late_tokens: TokenIds = Field(
        (), description="ids committed last: they have no confidence (`confidence_eos_eot_inf`)"
    )
    last_candidate: bool = Field(
        default=False, description="rule factor: commit the last open position along with all others, as the reference"
    )


def confidence(logits: Tensor, token: Tensor, late: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Probability [N] of each drawn token, `late` ones having none; logits [N, V]."""
    return probability_of(without(logits, late), token, dtype).cpu()


def blocks_of(canvas: Canvas, length: int) -> list[range]:
    """The answer in blocks of `length` positions from its beginning; the last may be short."""
    return [range(begin, min(begin + length, canvas.end)) for begin in range(canvas.prompt, canvas.end, length)]


def start(rules: Rules, precise: bool, canvas: Canvas, settings: LladaSettings, spec: ModelSpec) -> Program:
    """Block after block, pass after pass."""

    def sure(logits: Tensor, token: Tensor) -> Tensor:
        return confidence(logits, token, settings.late_tokens, torch.float64 if precise else logits.dtype)

    view = WholeCanvas(canvas, spec, settings)
    ruled = Ruled(canvas, rules, sure, coarse=not precise)
    direct = not (settings.guidance or settings.suppress_tokens or settings.late_tokens)
    for block in blocks_of(canvas, settings.block_length or spec.block_length):
        while canvas.open(block):
            positions = ruled.positions(block)
            answer = yield from view.forward(positions, block, ruled.ask(positions) if direct else LOGITS)
            if not direct:
                answer = of_logits(without(answer.logits, settings.suppress_tokens))
            ruled.commit(block, positions, answer, hasty=settings.last_candidate)
        canvas.release(block.stop)


def same_text(settings: LladaSettings, config: SamplingConfig, spec: ModelSpec) -> Hashable:
    """Modes that verify give the text of a fixed quota a pass, too, where nothing else is asked for."""
    plain = LladaSettings.model_validate({"block_length": settings.block_length, "steps": settings.steps})
    if config.steps is None or settings.model_copy(update={"rule": None}) != plain or settings.rule not in _QUOTA:
        return None
    length = settings.block_length or spec.block_length
    return slow_text(config, spec, length, passes_of_a_block(Counts.ANSWER, config, length))


def samplers(rules: Mapping[str, CommitRule], revocations: Mapping[str, RevocationRule]) -> list[Sampler]:
    """Both, with the rules there are."""
    known = Rules(rules, revocations)
    return [
        Sampler(
            name="llada",
            summary="semi-autoregressive blocks, confidence in the logits' dtype",
            source="ML-GSAI/LLaDA b7e6c35 generate.py (arXiv 2502.09992)",
            settings=LladaSettings,
            start=partial(start, known, False),
            unheld=None,
            suffix=True,
            counts=Counts.ANSWER,
            same_text=same_text,
            refuse=known.check,
        ),
        Sampler(
            name="fast_dllm",
            summary="LLaDA's blocks, confidence in float64, prefix and dual caching",
            source="NVlabs/Fast-dLLM 24cc59e llada/generate.py (arXiv 2505.22618)",
            settings=LladaSettings,
            start=partial(start, known, True),
            unheld=None,
            suffix=True,
            counts=Counts.ANSWER,
            refuse=known.check,
        ),
    ]
