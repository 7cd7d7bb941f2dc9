"""LLaDA's sampler (arXiv 2502.09992) and Fast-dLLM's on top of it (arXiv 2505.22618).

Source: ML-GSAI/LLaDA b7e6c35 `generate.py`; NVlabs/Fast-dLLM 24cc59e `llada/generate.py`.
Blocks are denoised left to right, each until nothing of it is open; a commit rule decides
what a pass settles. LLaDA's confidence is a softmax in the logits' own dtype, Fast-dLLM's
one in float64.
"""

from collections.abc import Mapping
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.prediction import predict
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import CommitRule
from dllm_plugins.samplers.base import Program
from dllm_plugins.samplers.base import Sampler
from dllm_plugins.samplers.canvas import Canvas
from dllm_plugins.samplers.view import View
from dllm_plugins.samplers.view import ViewSettings
from dllm_plugins.strategies.base import choose_rule


class LladaSettings(ViewSettings):
    """Options of LLaDA's sampler."""

    block_length: int | None = Field(None, description="positions denoised together")
    rule: str | None = Field(None, description="commit rule")
    steps: int | None = Field(None, description="passes a block is spread over (rule quota)")
    threshold: float | None = Field(None, description="probability that settles (rule threshold)")
    factor: float | None = Field(None, description="larger settles more a pass (rule factor)")
    suppress_tokens: tuple[int, ...] = Field((), description="ids never drawn (`logits_eos_inf` lists the end of text)")
    late_tokens: tuple[int, ...] = Field(
        (), description="ids settled last: they have no confidence (`confidence_eos_eot_inf`)"
    )
    last_candidate: bool = Field(
        default=False, description="rule factor: settle the last open position along with all others, as the reference"
    )


def confidence(logits: Tensor, token: Tensor, late: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Probability [N] of each drawn token, `late` ones having none; logits [N, V]."""
    if late:
        logits = logits.index_fill(-1, torch.tensor(late, device=logits.device), -torch.inf)
    return torch.softmax(logits.to(dtype), dim=-1).gather(1, token[:, None])[:, 0].cpu()


def blocks_of(canvas: Canvas, length: int) -> list[range]:
    """The answer in blocks of `length` positions from its beginning; the last may be short."""
    return [range(begin, min(begin + length, canvas.end)) for begin in range(canvas.prompt, canvas.end, length)]


def start(
    rules: Mapping[str, CommitRule],
    precise: bool,
    canvas: Canvas,
    settings: LladaSettings,
    spec: ModelSpec,
) -> Program:
    """Block after block, pass after pass."""
    row, view = canvas.row, View(canvas, spec, settings)
    rule, state = choose_rule(row.config, rules), None
    for block in blocks_of(canvas, settings.block_length or spec.block_length):
        step = 0
        while places := canvas.open(block):
            logits = yield from view.look(places, block)
            if settings.suppress_tokens:
                suppressed = torch.tensor(settings.suppress_tokens, device=logits.device)
                logits = logits.index_fill(-1, suppressed, -torch.inf)
            drawn = predict(canvas.drawable(logits), [row.canvas_draw(place) for place in places])
            sure = confidence(logits, drawn.token, settings.late_tokens, torch.float64 if precise else logits.dtype)
            seen = _seen(canvas, block, places, sure, step)
            decision, state = rule.decide(seen, (row.config,), state)
            if settings.last_candidate and int(decision.sum()) == len(places) - 1:
                decision = seen.open
            for place, token, source in zip(places, drawn.token.tolist(), logits, strict=True):
                if decision[0, place - block.start]:
                    canvas.write(place, token, source)
            canvas.release_settled()
            step += 1


def _seen(canvas: Canvas, block: range, places: list[int], sure: Tensor, step: int) -> CanvasView:
    index = torch.tensor(places) - block.start
    return CanvasView(
        probability=sure.new_zeros(1, len(block)).index_copy(1, index, sure[None]),
        open=torch.zeros(1, len(block), dtype=torch.bool).index_fill(1, index, True),
        settled_now=torch.tensor([0]),
        step=torch.tensor([step]),
        noise=(canvas.row.noise,),
    )


def check_rule(rules: Mapping[str, CommitRule], config: SamplingConfig) -> None:
    """Refuse an option of another rule than the one that is used.

    :raises OptionError: naming the option and its rule.
    """
    rule = choose_rule(config, rules)
    foreign = frozenset[str]().union(*(other.options for other in rules.values())) - rule.options
    for option in sorted(foreign & config.given().keys()):
        raise OptionError(
            f"option {option}={config.given()[option]!r} has no effect with rule {rule.name!r}; leave it out or "
            f"choose its rule"
        )


def samplers(rules: Mapping[str, CommitRule]) -> list[Sampler]:
    """Both, with the commit rules there are."""
    check = partial(check_rule, rules)
    return [
        Sampler(
            name="llada",
            summary="semi-autoregressive blocks, confidence in the logits' dtype",
            source="ML-GSAI/LLaDA b7e6c35 generate.py (arXiv 2502.09992)",
            settings=LladaSettings,
            start=partial(start, rules, False),
            suffix=True,
            check=check,
        ),
        Sampler(
            name="fast_dllm",
            summary="LLaDA's blocks, confidence in float64, prefix and dual caching",
            source="NVlabs/Fast-dLLM 24cc59e llada/generate.py (arXiv 2505.22618)",
            settings=LladaSettings,
            start=partial(start, rules, True),
            suffix=True,
            check=check,
        ),
    ]
