"""How much int8 weights and activations change the default model: its own held-out answers, token by token.

Both models read the same answers; at every position of an answer they say what comes next.
`agree` is the share of positions where their likeliest tokens are the same, `KL` the mean
divergence from the first one's distribution, `perplexity` that of the answers. Float32 is
the yardstick; bfloat16 beside it shows what a change of dtype alone does.
"""

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.training.batches import TrainingText
from dllm_plugins.training.batches import read_answers
from harness import machine
from progress import keep
from progress import show
from progress import track

MODELS: Mapping[str, Mapping[str, Any]] = {
    "float32": {"dtype": "float32"},
    "bf16": {"dtype": "bfloat16"},
    "int8": {"dtype": "bfloat16", "weights": "int8"},
    "blocks_int8": {"dtype": "float32", "weights": "blocks_int8"},
    "bf16_blocks_int8": {"dtype": "bfloat16", "weights": "blocks_int8"},
}
#: Pairs that are compared: the first is the baseline. Those of models that this machine does not compute are left out.
PAIRS = (
    ("float32", "bf16"),
    ("float32", "int8"),
    ("bf16", "int8"),
    ("float32", "blocks_int8"),
    ("bf16", "bf16_blocks_int8"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One model beside another over `tokens` positions of answers."""

    name: str
    tokens: int
    agree: float
    divergence: float
    perplexity: float
    baseline_perplexity: float
    change: float


def held_out() -> list[TrainingText]:
    """The base model's greedy answers that no training has seen."""
    return read_answers([Path(str(files("dllm_plugins") / "training" / "data" / "held-out.jsonl.gz"))])


def said(model: Model, answer: TrainingText) -> Tensor:
    """Log-probabilities [answer's tokens, vocabulary] of what comes next, as mode ar computes them."""
    denoiser, tokens = model.denoiser, answer.tokens[:-1]
    row = denoiser.open_row()
    wanted = range(answer.prompt - 1, len(tokens))
    (hidden,) = denoiser.forward([Segment(row, tokens, range(len(tokens)), wanted=wanted)])
    denoiser.close_row(row)
    return denoiser.logits(hidden).float().log_softmax(-1)


class Count:
    """Sums over answers of one pair of models."""

    def __init__(self) -> None:
        self.tokens, self.equal = 0, 0
        self.divergence, self.own, self.baseline = 0.0, 0.0, 0.0

    def add(self, baseline: Tensor, own: Tensor, said: Tensor) -> None:
        """Log-probabilities [N, vocabulary] of both, and the tokens [N] that came."""
        self.tokens += len(said)
        self.equal += int((baseline.argmax(-1) == own.argmax(-1)).sum())
        self.divergence += float((baseline.exp() * (baseline - own)).sum())
        self.own -= float(own.gather(1, said[:, None]).sum())
        self.baseline -= float(baseline.gather(1, said[:, None]).sum())

    def row(self, name: str) -> Row:
        """Means."""
        own, baseline = (math.exp(total / self.tokens) for total in (self.own, self.baseline))
        agree, divergence = self.equal / self.tokens, self.divergence / self.tokens
        return Row(name, self.tokens, agree, divergence, own, baseline, own / baseline - 1)


def compare(models: Mapping[str, Model], answers: Sequence[TrainingText]) -> Iterator[list[Row]]:
    """All pairs over one more of the answers each time."""
    counts = {pair: Count() for pair in PAIRS if models.keys() >= set(pair)}
    for answer in track(answers, "answers"):
        found = {name: said(model, answer) for name, model in models.items()}
        tokens = torch.tensor(answer.tokens[answer.prompt :])
        for (baseline, own), count in counts.items():
            count.add(found[baseline], found[own], tokens)
        yield [count.row(f"{own}_vs_{baseline}") for (baseline, own), count in counts.items()]


def computable() -> dict[str, Model]:
    """The models that run here; what the others lack is shown."""
    found = {}
    for name, options in MODELS.items():
        try:
            found[name] = load_model("dllm", device="cpu", **options)
        except OptionError as error:
            show(f"{name}: {error}")
    return found


def table(rows: Sequence[Row]) -> Table:
    """For people."""
    made = Table("pair", "tokens", "agree", "KL", "perplexity", "baseline", "change")
    for row in rows:
        numbers = (
            f"{row.agree:.2%}",
            f"{row.divergence:.5f}",
            f"{row.perplexity:.4f}",
            f"{row.baseline_perplexity:.4f}",
        )
        made.add_row(row.name, str(row.tokens), *numbers, f"{row.change:+.2%}")
    return made


@click.command()
@click.option("--answers", default=40, show_default=True, help="How many of the held-out answers.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Also write the rows here.")
def main(answers: int, path: Path | None) -> None:
    """Print a table."""
    models = computable()
    show(machine())
    rows: list[Row] = []
    try:
        with torch.inference_mode():
            for rows in compare(models, held_out()[:answers]):
                agreed = ", ".join(f"{row.name} {row.agree:.2%}" for row in rows)
                show(f"{rows[0].tokens} tokens, agree: {agreed}")
                keep(rows, path)
    finally:
        Console().print(table(rows))


if __name__ == "__main__":
    main()
