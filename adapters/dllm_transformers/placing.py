"""Checkpoints that are saved aside and take their place once they are whole: a killed save leaves what was there.

Each file is moved in one step. Which weights are read is said by one file, the only one of weights or the
index of several; those it names have names of their own, and what they replace goes last.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import INDEX
from dllm_plugins.families.checkpoint import SINGLE
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.whole import beside

#: One of several files of weights; a save that was killed may have left some that no index names.
_SHARD = re.compile(r"model(-[0-9a-f]{8})?-\d{5}-of-\d{5}\.safetensors")


@contextmanager
def aside(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder whose files are in `folder` when the block has ended well; other files there stay.

    :raises OptionError: if `folder` is a file.
    :raises CheckpointError: if another process is saving there.
    """
    place = Path(folder)
    if place.is_file():
        raise OptionError(f"{place} is a file; name a folder to save into")
    place.mkdir(parents=True, exist_ok=True)
    with beside(place / "checkpoint") as part:
        part.mkdir()
        yield part
        _put(part, place)
        shutil.rmtree(part)


def _put(part: Path, place: Path) -> None:
    before = _weights(place) | {path.name for path in place.iterdir() if _SHARD.fullmatch(path.name)}
    chosen = _own_names(part, place)
    for name in [*chosen, INDEX if (part / INDEX).exists() else SINGLE]:
        if (part / name).exists():
            (part / name).replace(place / name)
    if chosen:
        # transformers looks for this one first.
        (place / SINGLE).unlink(missing_ok=True)
    elif (place / SINGLE).exists():
        (place / INDEX).unlink(missing_ok=True)
    for name in before - _weights(place):
        (place / name).unlink(missing_ok=True)
    for path in sorted(path for path in part.rglob("*") if path.is_file()):
        target = place / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)


def _weights(folder: Path) -> set[str]:
    """The files of weights that are read from a folder."""
    named = _named(folder).values() if (folder / INDEX).exists() else ()
    return {name for name in (SINGLE, *named) if (folder / name).is_file()}


def _named(folder: Path) -> dict[str, str]:
    found = read_object(folder / INDEX).get("weight_map")
    names = found if isinstance(found, dict) else {}
    return {key: name for key, name in names.items() if isinstance(name, str) and Path(name).name == name}


def _own_names(part: Path, place: Path) -> list[str]:
    """Names of the several files of weights in `part`, changed where `place` has such a file already."""
    if not (part / INDEX).exists():
        return []
    mark, names = secrets.token_hex(4), _named(part)
    own = {name: name.replace("model-", f"model-{mark}-") for name in names.values() if (place / name).exists()}
    for name, changed in own.items():
        (part / name).rename(part / changed)
    index = read_object(part / INDEX)
    index["weight_map"] = {key: own.get(name, name) for key, name in names.items()}
    (part / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return sorted(set(index["weight_map"].values()))
