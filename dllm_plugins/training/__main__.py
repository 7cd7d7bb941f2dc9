"""`python -m dllm_plugins.training`: make text, train, evaluate."""

from pathlib import Path

import click
import torch

from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.errors import DllmError
from dllm_plugins.files.whole import alone
from dllm_plugins.training.corpus import make_corpus
from dllm_plugins.training.corpus import make_held_out
from dllm_plugins.training.decode import decode_table
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import Run

DATA = Path(__file__).parent / "data"


@click.group()
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
def main(threads: int) -> None:
    """Rebuild the weights of the default model's denoiser."""
    if threads:
        torch.set_num_threads(threads)


@main.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--seed", default=2026, show_default=True, help="Use another seed for each file of text.")
@click.option("--out", type=click.Path(path_type=Path), default=DATA / "answers-3.jsonl.gz", show_default=True)
def corpus(minutes: float, seed: int, out: Path) -> None:
    """Append the base model's own greedy answers to a file of training text."""
    with alone(out, wait=False):
        make_corpus(require_base(), out, minutes=minutes, seed=seed)


@main.command()
def held_out() -> None:
    """Write the base model's answers to the held-out prompts."""
    make_held_out(require_base(), DATA / "held-out.jsonl.gz", HELD_OUT)


@main.command()
@click.option("--minutes", default=106.0, show_default=True, help="Length of the whole run, resumed parts included.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/denoiser"), show_default=True)
@click.option("--compiled/--eager", default=True, show_default=True, help="torch.compile; needs a C++ compiler.")
@click.option("--from-shipped", is_flag=True, help="Start a new run from the shipped weights.")
@click.option("--seed", default=0, show_default=True)
def train(minutes: float, folder: Path, compiled: bool, from_shipped: bool, seed: int) -> None:
    """Train, or go on with the run in FOLDER."""
    data = sorted(DATA.glob("answers-*.jsonl.gz"))
    recipe = Recipe(minutes=minutes, seed=seed)
    run = Run(require_base(), data, [DATA / "held-out.jsonl.gz"], folder, recipe, compiled)
    with alone(folder / "run.pt", wait=False):
        run.resume(shipped_denoiser() if from_shipped else None)
        run.train()


@main.command()
@click.option("--denoiser", type=click.Path(path_type=Path), default=None, help="Weights; default: the shipped ones.")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--tokens", default=96, show_default=True, help="Most tokens an answer.")
@click.option("--prompts", default=len(HELD_OUT), show_default=True, help="How many of the held-out prompts.")
def evaluate(denoiser: Path | None, dtype: str, tokens: int, prompts: int) -> None:
    """Really decode the held-out prompts in every mode and print a table."""
    decode_table(denoiser, dtype, tokens, HELD_OUT[:prompts])


if __name__ == "__main__":
    try:
        main()
    except DllmError as error:
        raise SystemExit(f"error: {error}") from error
