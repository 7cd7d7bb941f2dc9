"""`python -m dllm_plugins.training reasoning` and, after `reasoning-`, `scores`, `table`, `plot` and `preset`."""

from pathlib import Path
from typing import Any

import click

from dllm_plugins.reasoning import TASKS
from dllm_plugins.training.reasoning.methods import METHODS
from dllm_plugins.training.reasoning.recipe import CellRecipe

_PLAIN = CellRecipe()
FOLDER_OF_ALL = Path("runs/reasoning")
FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), default=FOLDER_OF_ALL, show_default=True, help="Of all cells."
)


@click.command()
@click.option("--task", "task_name", type=click.Choice(list(TASKS)), required=True)
@click.option("--method", type=click.Choice(list(METHODS)), required=True)
@FOLDER
@click.option("--steps", type=click.IntRange(1), default=_PLAIN.steps, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=_PLAIN.batch, show_default=True, help="Examples a step.")
@click.option("--examples", type=click.IntRange(1), default=_PLAIN.examples, show_default=True, help="Of the data set.")
@click.option("--width", type=click.IntRange(8), default=_PLAIN.width, show_default=True)
@click.option("--inner", type=click.IntRange(8), default=_PLAIN.inner, show_default=True)
@click.option("--layers", type=click.IntRange(1), default=_PLAIN.layers, show_default=True)
@click.option("--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=_PLAIN.learning_rate)
@click.option("--begin", default="", help="A trained cell of FOLDER to go on from, such as path5-ar.")
@click.option("--seed", default=_PLAIN.seed, show_default=True, help="Of weights, data and noise.")
def reasoning(task_name: str, method: str, folder: Path, **recipe: Any) -> None:
    """Train one cell of the table of reasoning tasks, or go on with it."""
    from dllm_plugins.training.reasoning.train import CellRun

    name = f"{task_name}-{method}" + (f"-from-{recipe['begin']}" if recipe["begin"] else "")
    CellRun(folder / name, TASKS[task_name], method, CellRecipe(**recipe)).finish()


@click.command()
@FOLDER
@click.option("--cell", multiple=True, help="Such as path5-mgdm; all in FOLDER if left out.")
@click.option("--questions", type=click.IntRange(1), default=500, show_default=True, help="Held-out ones.")
def scores(folder: Path, cell: tuple[str, ...], questions: int) -> None:
    """Decode held-out questions with trained cells, in every way that fits."""
    from dllm_plugins.training.reasoning.evaluate import measure

    for name in cell or sorted(path.parent.name for path in folder.glob("*/model")):
        measure(folder / name, questions)


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), multiple=True, default=[FOLDER_OF_ALL], show_default=True)
def table(folder: tuple[Path, ...]) -> None:
    """Print what training took and what was measured; one folder for each seed."""
    from dllm_plugins.training.reasoning.table import costs
    from dllm_plugins.training.reasoning.table import lines_of
    from dllm_plugins.training.reasoning.table import table as written

    for place in folder:
        click.echo(costs(place) + "\n")
    click.echo(written([line for place in folder for line in lines_of(place)]))


@click.command()
@FOLDER
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("dllm_plugins/data/presets/path"), show_default=True
)
def preset(folder: Path, out: Path) -> None:
    """Rebuild the model of dllm-path, or go on with that."""
    from dllm_plugins.training.reasoning.shipped import rebuild

    rebuild(folder, out, _PLAIN)


@click.command()
@FOLDER
@click.option("--task", "task_name", type=click.Choice(list(TASKS)), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="An SVG file.")
def plot(folder: Path, task_name: str, out: Path) -> None:
    """Draw what was measured of one task."""
    from dllm_plugins.training.reasoning.plots import draw
    from dllm_plugins.training.reasoning.table import curve_of
    from dllm_plugins.training.reasoning.table import lines_of

    cells = sorted(path.parent.name for path in folder.glob(f"{task_name}-*/scores.json"))
    if not cells:
        raise click.ClickException(f"{folder} has no measured cell of {task_name}: run reasoning-scores first")
    lines = [line for line in lines_of(folder) if line["task"] == task_name]
    draw(lines, {cell: curve_of(folder / cell) for cell in cells}, out)
