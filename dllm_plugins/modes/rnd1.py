"""RND1's sampler: the positions of highest entropy stay open the longest.

Source: RadicalNumerics/RND1 87d5f46 `rnd/sampling.py`. Pass i of N leaves the share
(N - i)/N of the answer open, or, with `eb_gamma`, commits as many of the surest positions
as bounds their joint error (entropy bound, arXiv 2505.24857). Behind the sequence the
reference keeps one position for the end of text, which stays padding unless it is asked
for; the model sees it either way.

Its top_k and top_p make entropies NaN, and with that the order arbitrary: 0 times minus
infinity. Here what was cut off adds nothing. Its top_p keeps the second token always.
"""

import torch
from pydantic import Field
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Program
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_plugins.modes.choosing import spread
from dllm_plugins.modes.confidence import commit
from dllm_plugins.modes.confidence import draw
from dllm_plugins.modes.confidence import without_mask
from dllm_plugins.modes.ids import TokenId
from dllm_plugins.modes.whole_canvas import WholeCanvas
from dllm_plugins.modes.whole_canvas import WholeCanvasSettings


class Rnd1Settings(WholeCanvasSettings):
    """Options of RND1's sampler."""

    steps: int | None = Field(None, ge=1, description="most passes; one per position if not given")
    greedy: bool = Field(
        default=False, description="the likeliest tokens although temperature is above 0, which then acts on order only"
    )
    eb_gamma: float | None = Field(None, ge=0.0, description="entropy bound: larger commits more a pass")
    padding: int = Field(1, ge=0, description="positions behind the sequence, padding but for the last")
    add_eos_at_end: bool = Field(default=False, description="the last of them holds the end of text")
    pad_token_id: TokenId = Field(None, description="padding; the checkpoint's if not given, else 0")
    eos_token_id: TokenId = Field(None, description="end of text; the checkpoint's if not given")

    @model_validator(mode="after")
    def _fit(self) -> "Rnd1Settings":
        if self.add_eos_at_end and not self.padding:
            raise ValueError("add_eos_at_end needs a position behind the sequence; set padding to 1 or more")
        if self.eos_token_id is not None and not self.add_eos_at_end:
            raise ValueError(f"eos_token_id={self.eos_token_id} has no effect without add_eos_at_end")
        return self


def tail(settings: Rnd1Settings, spec: ModelSpec, room: int) -> list[int]:
    """What stands behind the sequence, `room` positions at most."""
    pad = spec.pad_id if settings.pad_token_id is None else settings.pad_token_id
    found = [pad or 0] * min(settings.padding, room)
    if settings.add_eos_at_end and found:
        eos = spec.eos_id if settings.eos_token_id is None else settings.eos_token_id
        assert eos is not None
        found[-1] = eos
    return found


def truncated(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits [N, V] with all but the likeliest at minus infinity; exactly k, then two at least."""
    if top_k is not None:
        best = torch.topk(logits, min(top_k, logits.shape[-1]))
        logits = torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values)
    if top_p is not None and top_p < 1:
        ordered, index = torch.sort(logits, dim=-1, descending=True)
        beyond = (torch.softmax(ordered, dim=-1).cumsum(-1) > top_p).roll(1, -1)
        beyond[:, :2] = False
        logits = logits.masked_fill(beyond.scatter(-1, index, beyond), -torch.inf)
    return logits


def start(canvas: Canvas, settings: Rnd1Settings, spec: ModelSpec) -> Program:
    """All of the canvas, pass after pass."""
    view, hole = WholeCanvas(canvas, spec, settings), range(canvas.prompt, canvas.end)
    canvas.tokens += tail(settings, spec, spec.context - len(canvas.tokens))
    whole, total = range(len(canvas.tokens)), len(canvas.open(hole))
    steps = settings.steps or total
    for left in range(steps - 1, -1, -1):
        positions = canvas.open(hole)
        if not positions:
            return
        logits = (yield from view.forward(positions, hole)).logits
        token, sure, entropy = measure(logits, canvas, settings, positions)
        if left == 0:
            chosen = positions
        elif settings.eb_gamma is not None:
            order = torch.argsort(spread(-sure, positions, whole, torch.inf))[: len(positions)]
            chosen = bounded(order, spread(entropy, positions, whole, 0.0), settings.eb_gamma)
        else:
            kept = int(torch.tensor(total) * (left / steps))
            doubt = spread(entropy, positions, whole, -torch.finfo(entropy.dtype).max)
            chosen = list(set(positions).difference(torch.topk(doubt, kept).indices.tolist()))
        commit(canvas, positions, token, logits, chosen)
        canvas.release_committed()


def measure(
    logits: Tensor, canvas: Canvas, settings: Rnd1Settings, positions: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens drawn at the positions, their log-probabilities, and entropies; each [N]."""
    config = canvas.row.config
    scaled = logits / (config.temperature or 1.0)
    logarithm = torch.log_softmax(truncated(scaled, config.top_k, config.top_p), dim=-1)
    drawable = truncated(without_mask(canvas, scaled), config.top_k, config.top_p)
    token = draw(canvas, drawable, positions, sampled=config.temperature > 0 and not settings.greedy)
    entropy = -(logarithm.exp() * logarithm.masked_fill(logarithm == -torch.inf, 0.0)).sum(-1)
    sure = logarithm.gather(-1, token[:, None])[:, 0].clamp(min=torch.finfo(logarithm.dtype).min)
    return token.cpu(), sure.cpu(), entropy.cpu()


def bounded(order: Tensor, entropy: Tensor, gamma: float) -> list[int]:
    """The longest beginning of `order` whose entropies, without the largest of them, sum to `gamma` at most."""
    ordered = entropy[order]
    within = ordered.cumsum(0) - ordered.cummax(0).values <= gamma
    return order[: int(within.sum())].tolist()


def fit(settings: Rnd1Settings, config: SamplingConfig, spec: ModelSpec) -> None:
    """Refuse an end of text that nobody names, and `greedy` where nothing is sampled anyway.

    :raises OptionError: naming the option.
    """
    if settings.greedy and config.temperature == 0:
        raise OptionError(
            "greedy=True has no effect at temperature 0, where order is that of temperature 1; leave it out"
        )
    eos = spec.eos_id if settings.eos_token_id is None else settings.eos_token_id
    if settings.add_eos_at_end and eos is None:
        raise OptionError(f"{spec.name} names no end of text for add_eos_at_end; give eos_token_id in preset_options")


SAMPLER = Sampler(
    name="rnd1",
    summary="low entropy first, on a schedule or within an entropy bound",
    source="RadicalNumerics/RND1 87d5f46 rnd/sampling.py",
    settings=Rnd1Settings,
    start=start,
    unheld=None,
    suffix=True,
    truncates_greedy=True,
    fit=fit,
)
