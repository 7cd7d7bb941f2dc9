"""`python -m dllm_plugins.training convert`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from dllm_plugins.files.whole import alone
from dllm_plugins.training.conversion.targets import TARGETS
from dllm_plugins.training.conversion.targets import TRI_MODE
from dllm_plugins.training.evaluation_prompts import HELD_OUT
from dllm_plugins.training.texts import HELD_OUT_TEXT
from dllm_plugins.training.texts import SHIPPED
from dllm_plugins.training.texts import folder_of

#: Options that mean nothing to one of the two ways.
_ONLY = {True: ("minutes", "compiled"), False: ("steps", "held_out", "gather", "length")}
#: Held-out texts whose bound is estimated at the end, and draws of noise for each.
TEXTS, DRAWS = 24, 4
_FILE = click.Path(path_type=Path, exists=True)


@click.command()
@click.option("--base", help="Folder or hub id of a Llama, Qwen2 or Qwen3; the default model's if left out.")
@click.option("--to", type=click.Choice([*TARGETS, TRI_MODE]), required=True, help="The format of the result.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/converted"), show_default=True)
@click.option(
    "--text", type=_FILE, multiple=True, help="JSON lines, or a folder that `corpus` made; may be given again."
)
@click.option("--held-out", type=_FILE, multiple=True, help="JSON lines; every twentieth text if left out.")
@click.option("--steps", type=click.IntRange(1), help="Of the whole run.  [default: 400]")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="The same, for tri-mode.  [default: 106]")
@click.option("--block", type=click.IntRange(1, 256), help="Positions of a block; left out, those of the format.")
@click.option("--batch", type=click.IntRange(1), help="Texts of a step in each process.  [default: 8; tri-mode: 5]")
@click.option("--gather", type=click.IntRange(1), help="Batches whose gradients make one step.  [default: 1]")
@click.option("--length", type=click.IntRange(8), help="Tokens of a text at most.  [default: 256]")
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), help="[default: 2e-4; tri-mode: 8e-4]")
@click.option("--dtype", type=click.Choice(["bfloat16", "float32"]), default="bfloat16", show_default=True)
@click.option("--compiled", is_flag=True, default=None, help="torch.compile, for tri-mode; needs a C++ compiler.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of texts, and of noise.")
@click.option(
    "--prompts", type=click.IntRange(1, len(HELD_OUT)), default=16, show_default=True, help="Decoded at the end."
)
@click.option("--tokens", type=click.IntRange(1), default=64, show_default=True, help="Most tokens of their answers.")
def convert(
    base: str | None, to: str, folder: Path, text: tuple[Path, ...], prompts: int, tokens: int, **given: Any
) -> None:
    """Turn an autoregressive model into a diffusion one, or go on with the run in FOLDER."""
    given = {name: value for name, value in given.items() if value not in (None, ())}
    for name in _ONLY[to != TRI_MODE]:
        if name in given:
            raise click.UsageError(f"--{name.replace('_', '-')} has no effect with --to {to}; leave it out")
    asked = HELD_OUT[:prompts]
    if to == TRI_MODE:
        from dllm_plugins.training.conversion.tri_mode import make_tri_mode

        make_tri_mode(base, folder_of(folder), text, asked, tokens, **given)
        return
    from dllm_plugins.training.conversion.run import Conversion
    from dllm_plugins.training.conversion.run import EvaluationSize
    from dllm_plugins.training.conversion.train import ConversionRecipe

    held_out = given.pop("held_out", (HELD_OUT_TEXT,) if base is None and not text else ())
    recipe = ConversionRecipe(**{"to": to, "block": TARGETS[to].block, **given})
    files = text or (SHIPPED if base is None else ())
    if not files:
        raise click.UsageError("there is no text to train on; give files or a folder that `corpus` made as --text")
    run = Conversion(base, folder_of(folder), recipe)
    with alone(folder / "run", wait=False) if run.together.is_main_process else nullcontext():
        run.make(files, held_out, EvaluationSize(TEXTS, DRAWS, asked, tokens), click.echo)
