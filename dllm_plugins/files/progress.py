"""How long work tells whoever waits for it."""

from collections.abc import Callable

#: Called with (stage, done, total); total 0 means unknown.
Progress = Callable[[str, int, int], None]


def quiet(_stage: str, _done: int, _total: int) -> None:
    """Report no progress."""
