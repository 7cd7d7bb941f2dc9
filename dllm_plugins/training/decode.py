"""Evaluation by really decoding held-out prompts, not by simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request

TRIALS: tuple[dict[str, Any], ...] = (
    {"mode": "speculative", "draft_length": 2},
    {"mode": "speculative", "draft_length": 3},
    {"mode": "speculative", "draft_length": 4},
    {"mode": "speculative", "draft_length": 6},
    {"mode": "diffusion", "threshold": 0.95},
    {"mode": "diffusion", "threshold": 0.9},
    {"mode": "diffusion", "threshold": 0.8},
    {"mode": "diffusion", "threshold": 0.7},
    {"mode": "diffusion", "threshold": 0.5},
)


@dataclass(frozen=True, slots=True)
class DecodingFigures:
    """One line of the table; `agreement` is the share of answers and of tokens equal to `ar`."""

    options: dict[str, Any]
    tokens_per_pass: float
    rows_per_token: float
    same_answers: int
    same_tokens: float
    doubled: int


def doubled_words(text: str) -> int:
    """Words written twice in a row, the commonest fault of parallel decoding."""
    words = text.lower().split()
    return sum(first == second and first.isalpha() for first, second in pairwise(words))


def _compare(options: dict[str, Any], found: list[Finish], reference: list[Finish]) -> DecodingFigures:
    useful = sum(item.usage.useful_tokens for item in found)
    equal = sum(
        sum(a == b for a, b in zip(item.tokens, other.tokens, strict=False))
        for item, other in zip(found, reference, strict=True)
    )
    return DecodingFigures(
        options,
        useful / sum(item.usage.total_passes for item in found),
        sum(item.usage.rows for item in found) / useful,
        sum(item.tokens == other.tokens for item, other in zip(found, reference, strict=True)),
        equal / useful,
        sum(doubled_words(item.text) for item in found),
    )


def decode_all(model: Model, prompts: Sequence[str], options: dict[str, Any]) -> list[Finish]:
    """Decode the prompts in one batch, which changes no token and no row's passes."""
    engine, config = model.engine(), SamplingConfig(**options)
    chats = [model.encode_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    return engine.generate([Request(tokens, config) for tokens in chats])


def decode_table(
    denoiser: Path | None, dtype: str, tokens: int, prompts: Sequence[str], base: str | None = None
) -> list[DecodingFigures]:
    """Decode in every mode and print a Markdown table."""
    model = load_model("dllm", base=base, denoiser=denoiser, dtype=dtype)
    reference = decode_all(model, prompts, {"mode": "ar", "max_new_tokens": tokens})
    print("| mode | tokens/pass | rows/token | answers equal to ar | tokens equal to ar | doubled words |")
    print("|---|---|---|---|---|---|", flush=True)
    lines = []
    for options in TRIALS:
        found = decode_all(model, prompts, {**options, "max_new_tokens": tokens})
        line = _compare(options, found, reference)
        name = ", ".join(str(value) if key == "mode" else f"{key} {value}" for key, value in options.items())
        print(
            f"| {name} | {line.tokens_per_pass:.3f} | {line.rows_per_token:.1f} | "
            f"{line.same_answers} of {len(prompts)} | {line.same_tokens:.0%} | {line.doubled} |",
            flush=True,
        )
        lines.append(line)
    return lines
