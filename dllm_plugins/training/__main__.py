"""`python -m dllm_plugins.training`: make text, train, convert, evaluate."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import torch

from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.errors import DllmError
from dllm_plugins.files.whole import alone
from dllm_plugins.training.answers import Wishes
from dllm_plugins.training.base import open_base
from dllm_plugins.training.batches import BLOCK
from dllm_plugins.training.batches import GROUP
from dllm_plugins.training.conversion.commands import convert
from dllm_plugins.training.corpus import Corpus
from dllm_plugins.training.decode import decode_table
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from dllm_plugins.training.reasoning import commands
from dllm_plugins.training.texts import HELD_OUT_TEXT
from dllm_plugins.training.texts import folder_of
from dllm_plugins.training.texts import text_of
from dllm_plugins.training.texts import write_held_out
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import TrainingRun
from dllm_plugins.training.workers import workers


@click.group()
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
def main(threads: int) -> None:
    """Make a base tri-mode: text, training, evaluation."""
    if threads:
        torch.set_num_threads(threads)


#: What is made tri-mode.
BASE = click.option("--base", help="Folder or hub id of a Llama, Qwen2 or Qwen3; the default model's if left out.")
DTYPE = click.option("--dtype", default="auto", show_default=True, help="What the base is computed in.")


@main.command()
@BASE
@DTYPE
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/corpus"), show_default=True)
@click.option(
    "--tokens", type=click.IntRange(1), default=5_000_000, show_default=True, help="Of all answers in FOLDER."
)
@click.option("--rows", type=click.IntRange(1), default=24, show_default=True, help="Answers decoded together.")
@click.option("--longest", type=click.IntRange(1), default=192, show_default=True, help="Most tokens an answer.")
@click.option(
    "--sampled",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Share of answers that are drawn, the others greedy.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100, min_open=True),
    default=0.8,
    show_default=True,
    help="Of answers that are drawn.",
)
@click.option("--prompts", type=click.IntRange(1), default=128, show_default=True, help="Prompts a file.")
@click.option("--seed", default=2026, show_default=True, help="Of the prompts.")
def corpus(base: str | None, dtype: str, folder: Path, tokens: int, prompts: int, seed: int, **wishes: Any) -> None:
    """Make training text, the base's own answers, or go on with it; several processes may share FOLDER."""
    made = Corpus(folder, Wishes(**wishes), prompts, seed)
    made.make(open_base(base, dtype), tokens, click.echo)


@main.command()
@BASE
@DTYPE
@click.option("--out", type=click.Path(path_type=Path), default=HELD_OUT_TEXT, show_default=True)
def held_out(base: str | None, dtype: str, out: Path) -> None:
    """Write the base's greedy answers to the held-out prompts."""
    write_held_out(open_base(base, dtype), out)


@main.command()
@BASE
@DTYPE
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    multiple=True,
    help="Folder that `corpus` made; may be given again. For the default base: what is in the repository if left out.",
)
@click.option("--minutes", default=106.0, show_default=True, help="Length of the whole run, resumed parts included.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/denoiser"), show_default=True)
@click.option("--rank", type=click.IntRange(1), help="Of the low-rank pairs; left out, what suits the base's width.")
@click.option("--chain", type=click.IntRange(1), help="Width of the draft head; left out, what suits the base's.")
@click.option("--group", type=click.IntRange(1, 16), default=GROUP, show_default=True, help="Drafts of a group.")
@click.option("--block", type=click.IntRange(1, 64), default=BLOCK, show_default=True, help="Open rows of a block.")
@click.option("--answers", type=click.IntRange(1), default=5, show_default=True, help="Of a step, in each process.")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=8e-4, show_default=True)
@click.option(
    "--distil",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the loss that is the distance to the base's own odds; the rest is the text's token.",
)
@click.option("--compiled/--eager", default=True, show_default=True, help="torch.compile; needs a C++ compiler.")
@click.option("--from-shipped", is_flag=True, help="Start a new run from the shipped weights.")
@click.option("--seed", default=0, show_default=True)
def train(
    base: str | None,
    dtype: str,
    text: tuple[Path, ...],
    folder: Path,
    compiled: bool,
    from_shipped: bool,
    **recipe: Any,
) -> None:
    """Train, or go on with the run in FOLDER; in several processes under `accelerate launch -m`."""
    together = workers()
    found = open_base(base, dtype, str(together.device))
    data = text_of(found, base, text)
    held_out = HELD_OUT_TEXT if base is None else folder / HELD_OUT_TEXT.name
    with alone(folder_of(folder) / "run.pt", wait=False) if together.first else nullcontext():
        if together.first and not held_out.exists():
            write_held_out(found, held_out)
        together.wait()
        run = TrainingRun(found, data, [held_out], folder, Recipe(**recipe), compiled, together)
        run.resume(shipped_denoiser() if from_shipped else None)
        run.train()


@main.command()
@BASE
@click.option("--denoiser", type=click.Path(path_type=Path), default=None, help="Weights; default: the shipped ones.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--tokens", default=96, show_default=True, help="Most tokens an answer.")
@click.option("--prompts", default=len(HELD_OUT), show_default=True, help="How many of the held-out prompts.")
def evaluate(base: str | None, denoiser: Path | None, dtype: str, tokens: int, prompts: int) -> None:
    """Really decode the held-out prompts in every mode and print a table."""
    decode_table(denoiser, dtype, tokens, HELD_OUT[:prompts], base)


main.add_command(convert)
main.add_command(commands.reasoning)
main.add_command(commands.scores, "reasoning-scores")
main.add_command(commands.table, "reasoning-table")
main.add_command(commands.preset, "reasoning-preset")
main.add_command(commands.plot, "reasoning-plot")


if __name__ == "__main__":
    try:
        main()
    except DllmError as error:
        raise SystemExit(f"error: {error}") from error
