"""Who pays for an exception: the row that raised it, or the rows that shared what failed."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import PassError
from dllm_plugins.events import Event
from dllm_plugins.events import Failure

if TYPE_CHECKING:
    from dllm_plugins.decoding.row import Row


@contextmanager
def blaming(row: "Row") -> Iterator[None]:
    """What is raised inside is this row's own doing: noted in its `error`, so that other rows of the pass go on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  what a plug-in raises must not reach other callers
        row.error = error


@contextmanager
def sharing(rows: Sequence["Row"]) -> Iterator[None]:
    """What is raised inside ends all of these rows that have no error of their own."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  nor leave those waiting who shared the pass
        for row in rows:
            row.error = row.error or caused(
                f"a pass over {len(rows)} rows failed: {type(error).__name__}: {error}; ask again, with fewer or "
                f"shorter requests at once if memory is short",
                error,
            )


def ending(row: "Row", error: Exception) -> DllmError:
    """What is told to whoever asked for a row that raised `error`: that very error if it is one of ours."""
    if isinstance(error, DllmError):
        return error
    return caused(
        f"the request ended in its pass {row.step + 1}: {type(error).__name__}: {error}; ask again, and report it "
        f"if that happens again",
        error,
    )


def broken_off(rows: int, cause: BaseException | None) -> PassError:
    """What is told to whoever asked for a row of a pass that an interrupt ended."""
    name = "an interrupt" if cause is None else type(cause).__name__
    return caused(f"a pass over {rows} rows was broken off by {name}; ask again", cause)


def caused(message: str, cause: BaseException | None) -> PassError:
    """An error of ours with what happened behind it."""
    error = PassError(message)
    error.__cause__ = cause
    return error


def or_raise(event: Event | Failure) -> Event:
    """The event; a failure is raised."""
    if isinstance(event, Failure):
        raise event.error
    return event
