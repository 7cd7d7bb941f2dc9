"""How far a job is: a bar on a terminal, with what was done, the rate, and the time left; nothing elsewhere."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager

from dllm_plugins.libraries.extras import has

#: Called with the rows that are answered, and the tokens that this process has made.
Report = Callable[[int, int], None]
#: Opens a report: called with all rows, and how many are answered already.
Progress = Callable[[int, int], AbstractContextManager[Report]]


def _quiet(_rows: int, _tokens: int) -> None:
    """Report nothing."""


@contextmanager
def silent(_total: int, _done: int) -> Iterator[Report]:
    """Show nothing."""
    yield _quiet


@contextmanager
def bar(total: int, done: int) -> Iterator[Report]:
    """A bar on stderr if that is a terminal and rich is there."""
    if not has("rich"):
        yield _quiet
        return
    from rich.console import Console
    from rich.progress import BarColumn
    from rich.progress import MofNCompleteColumn
    from rich.progress import Progress as Bars
    from rich.progress import TextColumn
    from rich.progress import TimeElapsedColumn
    from rich.progress import TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _quiet
        return
    columns = (
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, speed_estimate_period=120) as bars:
        task = bars.add_task("rows", total=total, completed=done, rate="")

        def report(rows: int, tokens: int) -> None:
            elapsed = bars.tasks[0].elapsed
            told = f"{(rows - done) / elapsed:.3g} rows/s, {tokens / elapsed:.3g} tokens/s" if elapsed else ""
            bars.update(task, completed=rows, rate=told)

        yield report
