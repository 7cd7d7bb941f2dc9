"""What a reader sees of a benchmark that runs: a bar on standard error, each row on standard output once it is there.

A row is flushed and written to the JSON file as soon as it is known, so a run that is
interrupted keeps what it measured.
"""

import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

Item = TypeVar("Item")
#: How often progress is told at most where there is no terminal.
LINES = 10


def track(items: Sequence[Item], what: str) -> Iterator[Item]:
    """`items`, with a bar on standard error that is gone afterwards; where that is no terminal, about ten lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        for done, item in enumerate(items):
            if done % -(-len(items) // LINES) == 0:
                say(f"{what}: {done} of {len(items)} done")
            yield item
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # rich sends all that is printed meanwhile to its own console, which is right only if both are the terminal.
    shared = sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=shared) as progress:
        yield from progress.track(items, description=what)


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def show(*lines: str) -> None:
    """Lines on standard output, at once."""
    print(*lines, sep="\n", flush=True)


def keep(rows: Sequence[Any], path: Path | None) -> None:
    """Write the rows there are so far, dataclasses, as a JSON list; nothing without a path."""
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
