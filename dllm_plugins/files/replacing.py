"""A folder's files, replaced together: who opens the folder finds all the old ones, or all the new ones.

New files are written into a hidden folder, which gets another name once they are whole, and are moved to their
places from there. Who is killed while they are moved leaves that folder behind, and whoever reads or saves next
moves the rest. Imports nothing heavy: reading config.json looks for such a folder.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole

#: The only file of weights, or the index of several.
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
NAMING = (SINGLE, INDEX)
#: What stands for the folder's files together, where they are locked and written.
_TOGETHER = "checkpoint"
#: Files that are whole and not all in their places yet.
_READY = ".checkpoint.ready"
#: One of several files of weights; earlier versions put eight digits into its name.
_SHARD = re.compile(r"model(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")


@contextmanager
def replacing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder whose files are in `folder` when the block has ended well.

    Weights that were in `folder` go with it, and all other files there stay.

    :raises OptionError: if `folder` is a file.
    :raises CheckpointError: if another process is saving there.
    """
    place = Path(folder)
    if place.is_file():
        raise OptionError(f"{place} is a file; name a folder to save into")
    place.mkdir(parents=True, exist_ok=True)
    with alone(place / _TOGETHER, wait=False):
        _move(place)
        with whole(place / _TOGETHER) as part:
            part.mkdir()
            yield part
            part.rename(place / _READY)
        _move(place)


def finish(folder: Path) -> bool:
    """Move the rest of the new files to their places, if a save into this folder was broken off while they were moved.

    :returns: whether there was such a save.
    :raises CheckpointError: if they cannot be moved.
    """
    if not (folder / _READY).is_dir():
        return False
    try:
        with alone(folder / _TOGETHER):
            _move(folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder} holds new files and old ones: a save was broken off, and cannot be finished now ({error}); load "
            f"it as somebody who may write there, or save it again"
        ) from error
    return True


def is_work(path: Path) -> bool:
    """Whether it is what a save that was broken off may leave before its files are whole."""
    return path.name.startswith(f".{_TOGETHER}.")


def _move(place: Path) -> None:
    """Under the lock; may be broken off anywhere, and begun again."""
    ready = place / _READY
    if not ready.is_dir():
        return
    for path in sorted((path for path in ready.rglob("*") if path.is_file()), key=_turn):
        if path.name in NAMING and path.parent == ready:
            for name in _weights(place) - _weights(ready) - _named(ready):
                (place / name).unlink(missing_ok=True)
        target = place / path.relative_to(ready)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(ready)


def _turn(path: Path) -> int:
    """The config goes first: without it transformers asks no class of ours, which would finish the rest.

    What says which weights there are goes last: by it, obsolete ones are known.
    """
    return 0 if path.name == "config.json" else 2 if path.name in NAMING else 1


def _weights(folder: Path) -> set[str]:
    """The files of weights in a folder, with their index."""
    shards = {path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name)}
    return {name for name in (*NAMING, *shards, *_named(folder)) if (folder / name).exists()}


def _named(folder: Path) -> set[str]:
    """The files that a folder's index names."""
    try:
        found = read_object(folder / INDEX).get("weight_map")
    except CheckpointError:
        return set()
    names = found.values() if isinstance(found, dict) else ()
    texts = {name for name in names if isinstance(name, str)}
    return {name for name in texts if Path(name).name == name and name.endswith(".safetensors")}


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder; a save into it that was broken off is finished first.

    :raises CheckpointError: if it is missing, no JSON object, or holds a number that no model has.
    """
    finish(folder)
    place = folder / "config.json"
    config = read_object(place)
    check_numbers(config, str(place))
    return config
