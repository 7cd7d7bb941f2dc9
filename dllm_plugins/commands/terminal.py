"""What commands show: progress, as bars on a terminal and one line a stage elsewhere, and errors in one line."""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import calling
from dllm_plugins.libraries.extras import has
from dllm_plugins.messages import PLAIN
from dllm_plugins.messages import Dialect

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.progress import TaskID

    from dllm_plugins.files.progress import Progress as Report


@contextmanager
def clean_errors() -> Iterator[None]:
    """Show our errors as click shows its own: one line, no traceback, in the words of the command's host."""
    context = click.get_current_context(silent=True)
    host = None if context is None else context.obj
    try:
        with calling(host if isinstance(host, Dialect) else PLAIN):
            yield
    except DllmError as error:
        raise click.ClickException(str(error)) from error


def show(lines: Mapping[str, str]) -> None:
    """Titles and what is said of them, below one another."""
    for title, text in lines.items():
        click.echo(f"{title:9} {text}")


@contextmanager
def shown(titles: Mapping[str, str]) -> "Iterator[Report]":
    """What to hand on as `progress`; everything goes to stderr.

    :param titles: of the stages; a stage without one goes by its own name.
    """
    if not has("rich"):
        yield _lines(titles)
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console) as bars:
            yield _bars(bars, titles)
    else:
        yield _lines(titles)


def _bars(bars: "Progress", titles: Mapping[str, str]) -> "Report":
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(titles.get(stage, stage), total=None)
        bars.update(tasks[stage], completed=done, total=total or None)

    return show


def _lines(titles: Mapping[str, str]) -> "Report":
    message: set[str] = set()

    def say(stage: str, _done: int, _total: int) -> None:
        if stage not in message:
            message.add(stage)
            click.echo(f"{titles.get(stage, stage)} ...", err=True)

    return say
