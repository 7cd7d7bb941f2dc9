"""Whether drafts pay: weights as their file holds them, passes over few rows, and lossless speculation beside AR.

Answers are greedy, one request at a time; contestants take turns. Named baselines: our own mode `ar` on weights
dequantised to bfloat16 (the same tokens), our own `ar` on the same weights, llama.cpp's AR of the shipped file
(Q4_1) and of the same weights quantised to Q4_0, and a pass of one clean row. Those with `int8` round activations,
as llama.cpp does, and are another model than the exact ones. Rows are CONTESTANT_vs_BASELINE;
those of passes give our time over that of the one-row pass. Behind them comes what a first word costs, of which
benchmarks/first_word.py tells more.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch

import first_word
import llama_cpp_pass
from copies import COPIES
from default_model import llama_cpp_greedy
from default_model import ours
from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from harness import Decode
from harness import Row
from harness import compared
from harness import table
from passes import Contestant
from passes import block
from passes import drawn
from passes import filled
from passes import measured
from passes import medians
from passes import predict
from passes import put
from progress import keep
from progress import show

#: Rows of the passes that are compared with a pass over one.
ROWS = (4, 16)
PREFIX = 256


def answers(models: dict[str, Model], tokens: int, files: dict[str, Path]) -> dict[str, Decode]:
    """All that decode the held-out prompts.

    :param files: GGUF files for llama.cpp, by their kind.
    """
    stored, int8 = models["stored"], models["int8"]
    found = {
        "ar_q4_exact": ours(stored, tokens, mode="ar"),
        "ar_bf16": ours(models["dequantised"], tokens, mode="ar"),
        "ar_int8": ours(int8, tokens, mode="ar"),
        "speculative": ours(stored, tokens, mode="speculative"),
        "speculative_fixed_2": ours(stored, tokens, mode="speculative", draft_length=2),
        "speculative_int8": ours(int8, tokens, mode="speculative"),
    }
    threads = torch.get_num_threads()
    return found | {
        f"llama_cpp_{kind}": llama_cpp_greedy(stored, file, tokens, threads) for kind, file in files.items()
    }


def pairs(files: dict[str, Path]) -> dict[str, tuple[str, str]]:
    """Which rows are printed, by name."""
    found = {
        "ar_q4_exact_vs_ar_bf16": ("ar_q4_exact", "ar_bf16"),
        "speculative_vs_ar": ("speculative", "ar_q4_exact"),
        "speculative_fixed_2_vs_ar": ("speculative_fixed_2", "ar_q4_exact"),
        "speculative_int8_vs_ar_int8": ("speculative_int8", "ar_int8"),
    }
    own = {
        "ar_q4": "ar_q4_exact",
        "ar_int8": "ar_int8",
        "speculative": "speculative",
        "speculative_int8": "speculative_int8",
    }
    for kind in files:
        found |= {f"{row}_vs_llama_cpp_{kind}": (ours, f"llama_cpp_{kind}") for row, ours in own.items()}
    return found


def copying(model: Model, tokens: int) -> tuple[dict[str, Decode], dict[str, tuple[str, str]]]:
    """Who decodes the prompts that are to be copied from, and which rows are printed."""
    found = {
        "ar_copies": ours(model, tokens, mode="ar"),
        "speculative_copies": ours(model, tokens, mode="speculative"),
        "speculative_denoiser_copies": ours(model, tokens, mode="speculative", drafts="denoiser"),
    }
    return found, {f"{name}_vs_ar": (name, "ar_copies") for name in found if name != "ar_copies"}


@dataclass(frozen=True, slots=True)
class PassRow:
    """A pass beside one over a single clean row, both with the head over all rows; milliseconds are medians.

    :param weights: what is multiplied.
    :param times_baseline: our time over that of one row.
    """

    name: str
    weights: str
    ours: float
    baseline: float
    unit: str
    times_baseline: float


def passes(model: Model, rounds: int) -> Iterator[PassRow]:
    """Passes of :data:`ROWS` rows behind a prefix, all but the first of them open."""
    denoiser = model.denoiser
    tokens = drawn(PREFIX + 1, denoiser.spec.vocabulary)
    row = filled(denoiser, tokens[:PREFIX])
    made = {str(rows): predict(denoiser, block(denoiser, row, tokens[PREFIX], PREFIX, rows)) for rows in (1, *ROWS)}
    found = medians({rows: Contestant(run) for rows, run in made.items()}, rounds)
    for rows in map(str, ROWS):
        taken, one = found[rows], found["1"]
        times = round(taken / one, 3)
        weights = denoiser.spec.weights
        yield PassRow(f"pass{rows}_vs_pass1", weights, round(taken, 2), round(one, 2), "ms/pass", times)


def pass_table(rows: Sequence[PassRow]) -> str:
    """Rows in Markdown."""
    lines = ["| row | weights | ours | one row | times one row |", "|---|---|---|---|---|"]
    for row in rows:
        taken = f"{row.ours:.1f} {row.unit} | {row.baseline:.1f} {row.unit} | {row.times_baseline:.2f}"
        lines.append(f"| {row.name} | {row.weights} | {taken} |")
    return "\n".join(lines)


def load(dtype: str) -> dict[str, Model]:
    """The default model as its file holds it, the same with int8 activations, and dequantised."""
    chosen = {"stored": "auto", "int8": "blocks_int8", "dequantised": "dequantised"}
    return {name: load_model("dllm", device="cpu", dtype=dtype, weights=weights) for name, weights in chosen.items()}


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows here.")
@click.option("--prompts", default=8, show_default=True, help="How many of the held-out prompts.")
@click.option("--tokens", default=64, show_default=True, help="Most tokens an answer.")
@click.option("--rounds", default=3, show_default=True, help="Medians are over this many; ten times it for passes.")
@click.option("--dtype", default="bfloat16", show_default=True, help="What is multiplied in.")
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="An earlier checkout, for the first word.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Put the tables into this page.")
def main(
    path: Path | None, prompts: int, tokens: int, rounds: int, dtype: str, before: Path | None, page: Path | None
) -> None:
    """Measure and print tables."""
    models = load(dtype)
    show(f"weights as stored: {models['stored'].denoiser.spec.weights}; {dtype}")
    with TemporaryDirectory() as folder:
        files = llama_cpp_pass.contestants(Path(folder))
        rows: list[Row] = compared(answers(models, tokens, files), pairs(files), HELD_OUT[:prompts], rounds, path)
    rows += compared(*copying(models["stored"], tokens), COPIES[:prompts], rounds, path, rows)
    wide = [row for model in models.values() for row in passes(model, 10 * rounds)]
    show("", pass_table(wide))
    keep([*rows, *wide], path)
    starts = first_word.measured(before, rounds)
    show("", first_word.start_table(starts))
    keep([*rows, *wide, *starts], path)
    if page is not None:
        head = f"{measured()} {prompts} prompts, at most {tokens} tokens, rounds: {rounds}, {dtype}."
        tables = [table(rows), pass_table(wide), first_word.start_table(starts)]
        put(page, "drafts", "\n\n".join([head, *tables]))


if __name__ == "__main__":
    main()
