"""A sign of life until the first word: loading takes seconds in which nothing else can be said."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager

import click

from dllm_plugins.libraries.extras import has


@contextmanager
def waiting(name: str) -> Iterator[Callable[[], None]]:
    """Show on stderr that a model is at work, until the function it gives is called or the block ends.

    Nothing is shown where stderr is no terminal, and none to programs that use the models
    of llm in Python: only to who runs a command.

    :param name: of the model.
    """
    # Without rich there is no sign either; imported last, as most answers of a pipe need none.
    if click.get_current_context(silent=True) is None or not has("rich"):
        yield lambda: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda: None
        return
    # What others write meanwhile to stdout is theirs, and may go elsewhere.
    sign = Live(Spinner("dots", f"loading {name}"), console=console, transient=True, redirect_stdout=False)
    with sign:
        yield sign.stop
