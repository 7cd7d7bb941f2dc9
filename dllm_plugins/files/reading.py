"""Reading what others wrote: a file that is none, one that is damaged, one that is absurd.

Nothing here imports torch or transformers. A checkpoint's files come from anybody, so everything
that goes wrong while they are read is an error of ours that names the file and what mends it.
"""

import json
import stat
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import DllmError

AGAIN = "download the checkpoint again, or mend the file"
#: Bytes of a file of settings. The largest that were seen are indexes of hundreds of thousands of tensors.
MAX_JSON = 1 << 26
#: How many lists and objects may stand inside one another in a file of settings.
MAX_DEPTH = 64
#: Of what a library says, which may repeat the whole file.
_SAID = 600


def is_there(path: Path) -> bool:
    """Whether there is anything of that name, a link that leads nowhere included: that is no missing file."""
    return path.exists() or path.is_symlink()


def regular(path: Path, remedy: str = AGAIN, limit: int | None = None) -> Path:
    """The path, if it leads to a regular file; anything else is refused without being opened.

    A pipe would block whoever opens it, a device may never end. Links are followed: the hub's cache is made of them.

    :param limit: bytes it may have; None for any number.
    :raises CheckpointError: for what is missing, no regular file, or too large.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; {remedy}") from error
    if not stat.S_ISREG(state.st_mode):
        raise CheckpointError(f"cannot read {path}: it is {_kind(state.st_mode)}, where a file is needed; {remedy}")
    if limit is not None and state.st_size > limit:
        raise CheckpointError(f"{path} has {state.st_size} bytes, and no such file has more than {limit}; {remedy}")
    return path


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_one, name in kinds.items() if is_one(mode)), "a device")


def read_json(path: Path, remedy: str = AGAIN, limit: int = MAX_JSON) -> Any:
    """What a JSON file holds.

    :param limit: bytes it may have.
    :raises CheckpointError: if it cannot be read, is too large or nested too deeply, or holds no JSON.
    """
    try:
        text = regular(path, remedy, limit).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; {remedy}") from error
    return parse_json(text, str(path), remedy)


def parse_json(text: str, origin: str, remedy: str = AGAIN) -> Any:
    """What a JSON text says.

    :param origin: where it is from, for errors.
    :raises CheckpointError: if it is no JSON, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {origin}: it is no JSON ({error}); {remedy}") from error
    if _depth(found) > MAX_DEPTH:
        raise CheckpointError(f"cannot read {origin}: it is nested more than {MAX_DEPTH} deep; {remedy}")
    return found


def read_object(path: Path, remedy: str = AGAIN, limit: int = MAX_JSON) -> dict[str, Any]:
    """The same for a file that must hold a JSON object.

    :raises CheckpointError: also if it holds anything else.
    """
    found = read_json(path, remedy, limit)
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds {_shown(found)}, where a JSON object is needed; {remedy}")
    return found


def _shown(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _depth(value: Any) -> int:
    """How deep it is nested, by levels: what json could read is not too deep for a loop."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inside = [item for item in level if isinstance(item, (dict, list))]
        level = [part for item in inside for part in (item.values() if isinstance(item, dict) else item)]
        depth += bool(inside)
    return depth


def raised_by_library(error: BaseException) -> bool:
    """Whether this is a failure, and not somebody leaving the program.

    A panic of a library in Rust is no Exception to Python.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


@contextmanager
def reading(place: object, remedy: str = AGAIN) -> Iterator[None]:
    """The border around whatever reads a checkpoint: what libraries raise there becomes one error of ours.

    Our own errors pass, and so do interrupts.

    :param place: the file or folder, for the error.
    :raises CheckpointError: caused by what was raised.
    """
    try:
        yield
    except DllmError:
        raise
    except BaseException as error:
        if not raised_by_library(error):
            raise
        said = " ".join(str(error).split())
        said = said if len(said) <= _SAID else f"{said[:_SAID]} ..."
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            remedy = f"it wants more memory than there is: free some, or {remedy}"
        raise CheckpointError(f"cannot read {place} ({type(error).__name__}: {said}); {remedy}") from error


def without_keys(config: Mapping[str, Any], keys: Container[str]) -> dict[str, Any]:
    """A config without these entries, its `text_config` neither."""
    found = {key: value for key, value in config.items() if key not in keys}
    if isinstance(found.get("text_config"), dict):
        found["text_config"] = without_keys(found["text_config"], keys)
    return found
