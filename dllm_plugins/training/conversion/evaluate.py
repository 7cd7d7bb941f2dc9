"""What became of a base: bounds, tokens per pass, what the base thinks of the answers, exact checks."""

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dllm_plugins.config import SamplingConfig
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.processes.objectives import IGNORED
from dllm_plugins.request import Request
from dllm_plugins.training.conversion.bounds import likelihood
from dllm_plugins.training.decode import doubled_words

Options = dict[str, Any]
#: Modes whose text is promised to be that of another setting, token for token.
LOSSLESS: tuple[tuple[Options, Options], ...] = (
    ({"mode": "s2d2"}, {"mode": "s2d2_ar"}),
    ({"mode": "freedave"}, {"mode": "sdar", "preset_options": {"remasking": "low_confidence_static"}}),
    ({"mode": "freedave"}, {"mode": "scheduled", "rule": "quota"}),
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Answers to the held-out prompts with one setting.

    :param perplexity: of the answers under the base, by which repetition is likely; NaN where all are empty.
    :param ended: share of answers that ended by themselves.
    :param doubled: words written twice in a row, a share of all.
    """

    options: Options
    tokens_per_pass: float
    perplexity: float
    ended: float
    doubled: float


@dataclass(frozen=True, slots=True)
class LosslessCheck:
    """How many answers of a lossless setting equal those of the one it must equal."""

    fast: Options
    slow: Options
    equal: int
    of: int


def trials(to: str, block: int, tokens: int) -> list[Options]:
    """The settings that are compared: from a position a pass to about four."""
    if to in ("sdar", "fast-dllm-v2"):
        return [{"threshold": threshold} for threshold in (1.0, 0.9, 0.7)]
    # Passes of the whole answer, as many for each block.
    blocks = -(-tokens // block)
    return [{"steps": steps} for steps in dict.fromkeys(blocks * max(1, block // parts) for parts in (1, 2, 4))]


def asked(model: Model, prompts: Sequence[str]) -> list[list[int]]:
    """Prompts in tokens: a chat each, and a line each where there is no chat template."""
    if model.tokenizer.chat_template:
        return [model.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    return [model.encode_text(prompt + "\n") for prompt in prompts]


def answers(model: Model, prompts: Sequence[list[int]], tokens: int, **options: Any) -> list[Finish]:
    """All prompts, decoded together.

    :param tokens: of an answer at most.
    """
    config = SamplingConfig(**{"max_new_tokens": tokens, **options})
    return model.engine().generate([Request(prompt, config) for prompt in prompts])


def decoded(model: Model, base: Any, prompts: Sequence[list[int]], tokens: int, options: Options) -> Decoded:
    """Decode the prompts.

    :param base: the autoregressive base in transformers.
    """
    found = answers(model, prompts, tokens, **{"mode": "diffusion", **options})
    rows = [
        {"input_ids": [*prompt, *item.tokens], "labels": [*[IGNORED] * len(prompt), *item.tokens]}
        for prompt, item in zip(prompts, found, strict=True)
        if item.tokens
    ]
    return Decoded(
        options,
        sum(item.usage.useful_tokens for item in found) / sum(item.usage.total_passes for item in found),
        math.exp(likelihood(base, rows)) if rows else math.nan,
        sum(item.reason == "eos" for item in found) / len(found),
        sum(doubled_words(item.text) for item in found) / max(1, sum(len(item.text.split()) for item in found)),
    )


def checks(model: Model, prompts: Sequence[list[int]], tokens: int, block: int) -> Iterator[LosslessCheck]:
    """Whether the lossless modes that the model has are so."""
    known = model.denoiser.spec.samplers
    for fast, slow in LOSSLESS:
        if {fast["mode"], slow["mode"]} <= known.keys():
            sizes = {} if slow["mode"] == "s2d2_ar" else {"block_length": block}
            first, second = (answers(model, prompts, tokens, **options, **sizes) for options in (fast, slow))
            same = sum(a.tokens == b.tokens for a, b in zip(first, second, strict=True))
            yield LosslessCheck(fast, slow, same, len(prompts))


def reads_back(trained: Any, saved: Any, ids: Sequence[int]) -> bool:
    """Whether a folder, read again, gives the logits of the model that was trained, to the bit."""
    asked = torch.tensor([list(ids)])
    with torch.no_grad():
        return torch.equal(trained.eval()(asked).logits, saved.eval()(asked).logits)
