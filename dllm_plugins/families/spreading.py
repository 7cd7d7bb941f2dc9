"""Weights spread over devices: by accelerate, as somebody said."""

from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.reading import reading
from dllm_plugins.messages import Message
from dllm_plugins.messages import Option
from dllm_plugins.messages import joined
from dllm_plugins.messages import message
from dllm_plugins.messages import shown


@contextmanager
def loading_onto(folder: str | Path, asked: Mapping[str, Any]) -> Iterator[None]:
    """The border around whatever puts a checkpoint that was checked into a class.

    What is raised there is about what was asked for, such as a device that is not there.

    :param asked: values by the names of their arguments; None is not asked for.
    :raises OptionError: naming them.
    :raises CheckpointError: where nothing was asked for, or memory does not suffice.
    """
    given: list[Message] = [message("{}={}", Option(name), shown(value)) for name, value in asked.items() if value]
    try:
        with reading(folder):
            yield
    except CheckpointError as error:
        cause = error.__cause__
        if cause is None or not given or isinstance(cause, MemoryError) or type(cause).__name__ == "OutOfMemoryError":
            raise
        raise OptionError(
            message(
                "{} cannot be loaded with {} ({}: {}); change that or leave it out",
                folder,
                joined(given, ", "),
                type(cause).__name__,
                " ".join(str(cause).split()),
            )
        ) from cause
