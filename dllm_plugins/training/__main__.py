"""`python -m dllm_plugins.training`: make text, train, evaluate."""

from pathlib import Path
from typing import Any

import click
import torch

from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.errors import DllmError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import beside
from dllm_plugins.training.answers import Answers
from dllm_plugins.training.answers import Wishes
from dllm_plugins.training.base import model_of
from dllm_plugins.training.base import open_base
from dllm_plugins.training.corpus import Corpus
from dllm_plugins.training.corpus import write_answers
from dllm_plugins.training.decode import decode_table
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import Run

DATA = Path(__file__).parent / "data"
HELD_OUT_TEXT = DATA / "held-out.jsonl.gz"


@click.group()
@click.option("--threads", default=0, help="CPU threads; 0 leaves torch's choice.")
def main(threads: int) -> None:
    """Rebuild the weights of the default model's denoiser."""
    if threads:
        torch.set_num_threads(threads)


#: What is made tri-mode.
BASE = click.option("--base", help="Folder or hub id of a Llama, Qwen2 or Qwen3; the default model's if left out.")
DTYPE = click.option("--dtype", default="auto", show_default=True, help="What the base is computed in.")


@main.command()
@BASE
@DTYPE
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/corpus"), show_default=True)
@click.option("--tokens", default=5_000_000, show_default=True, help="Of all answers in FOLDER.")
@click.option("--rows", default=24, show_default=True, help="Answers decoded together.")
@click.option("--longest", default=192, show_default=True, help="Most tokens an answer.")
@click.option("--sampled", default=0.4, show_default=True, help="Share of answers that are drawn, the others greedy.")
@click.option("--temperature", default=0.8, show_default=True, help="Of answers that are drawn.")
@click.option("--prompts", default=512, show_default=True, help="Prompts a file.")
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
    wishes = Wishes(rows=len(HELD_OUT), longest=96, sampled=0.0, follow_up=0.0)
    chats = [(number, [{"role": "user", "content": prompt}]) for number, prompt in enumerate(HELD_OUT)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with beside(out) as part:
        write_answers(part, Answers(model_of(open_base(base, dtype)), wishes)(chats))


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
