"""What a job's folder states in JSON: written whole, and compared with what is asked for now."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_plugins.errors import JobError
from dllm_plugins.files.whole import whole
from dllm_plugins.messages import shown


def write(place: Path, state: Mapping[str, Any]) -> None:
    """Write a state; it is there whole, or not at all."""
    with whole(place) as part, part.open("w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())


def read(place: Path) -> dict[str, Any]:
    """Read a state.

    :raises JobError: if it is none.
    """
    try:
        found = json.loads(place.read_text())
        assert isinstance(found, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise damaged(place, str(error) or "it holds something else") from error
    return found


def damaged(place: Path, reason: str) -> JobError:
    """What is said of a state that is none."""
    return JobError(f"{place} cannot be read ({reason}); remove {place.parent} to begin the job anew")


def compare(begun: Mapping[str, Any], now: Mapping[str, str], folder: Path) -> None:
    """Refuse to go on otherwise than a job was begun.

    :raises JobError: naming what differs.
    """
    names = sorted(begun.keys() | now.keys())
    other = [name for name in names if begun.get(name) != now.get(name)]
    if other:
        told = "; ".join(f"{name} was {_shown(begun, name)} and is {_shown(now, name)}" for name in other)
        raise JobError(
            f"the job was begun otherwise: {told}. Give the command it was begun with, name another output, or remove "
            f"{folder} to begin anew"
        )


def _shown(values: Mapping[str, Any], name: str) -> str:
    return shown(values[name]).strip("'") if name in values else "not given"
