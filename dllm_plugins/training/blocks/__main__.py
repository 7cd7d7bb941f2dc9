"""`python -m dllm_plugins.training.blocks`: train, evaluate."""

from pathlib import Path

import click
import torch

from dllm_plugins.errors import DllmError
from dllm_plugins.files.whole import alone
from dllm_plugins.training.blocks.compact import compact as compacted
from dllm_plugins.training.blocks.evaluate import print_scores
from dllm_plugins.training.blocks.evaluate import shipped_model
from dllm_plugins.training.blocks.recipe import BlockRecipe
from dllm_plugins.training.blocks.train import BlockRun


@click.group()
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
def main(threads: int) -> None:
    """Train the small block-diffusion model that solves 4x4 sudoku."""
    if threads:
        torch.set_num_threads(threads)


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/blocks"), show_default=True)
@click.option("--steps", default=BlockRecipe().steps, show_default=True, help="Length of the whole run.")
@click.option("--seed", default=0, show_default=True)
def train(folder: Path, steps: int, seed: int) -> None:
    """Train, or go on with the run in FOLDER."""
    run = BlockRun(folder, BlockRecipe(steps=steps, seed=seed))
    with alone(folder / "run.pt", wait=False):
        run.resume()
        run.train()


@main.command()
@click.option("--model", type=click.Path(path_type=Path), default=None, help="Folder; default: the shipped model.")
@click.option("--puzzles", default=500, show_default=True, help="How many held-out puzzles.")
@click.option("--seed", default=0, show_default=True, help="The recipe's: it decides which boards were held out.")
def evaluate(model: Path | None, puzzles: int, seed: int) -> None:
    """Solve held-out puzzles, committing one to all cells of a block in a pass."""
    print_scores(model or shipped_model(), puzzles, seed)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), default=None, help="Folder; default: the shipped model.")
@click.option(
    "--bits", default=2, show_default=True, type=click.IntRange(1, 6), help="Of the mantissa, which are kept."
)
def compact(folder: Path, model: Path | None, bits: int) -> None:
    """Write a model to FOLDER whose weights are rounded, so that a wheel packs it smaller."""
    compacted(model or shipped_model(), folder, bits)


if __name__ == "__main__":
    try:
        main()
    except DllmError as error:
        raise SystemExit(f"error: {error}") from error
