"""Pairs by name: what `llm dllm pair` registers, and every host loads by that name.

llm reads it on every call, so nothing here imports more than it must.
"""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.messages import shown

#: What the values of a pair are, for people.
_KINDS: Mapping[str, tuple[type, str]] = {
    "ar": (str, "a name, a folder, a hub id or a file, as a text"),
    "diffusion": (str, "a name, a folder, a hub id or a file, as a text"),
    "ar_options": (dict, "a mapping of options of load_model"),
    "diffusion_options": (dict, "a mapping of options of load_model"),
    "draft_length": (int, "a number from 1 to 16"),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models under one name.

    :param ar: the model that verifies, whose text it is; as `load_model` takes it, or an ordinary Llama, Qwen2, Qwen3.
    :param diffusion: the model that drafts.
    :param ar_options: of `load_model`, for the one.
    :param diffusion_options: for the other.
    :param draft_length: drafts of a pass where a request says nothing; None for the default.
    """

    ar: str
    diffusion: str
    ar_options: Mapping[str, Any] = field(default_factory=dict)
    diffusion_options: Mapping[str, Any] = field(default_factory=dict)
    draft_length: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Pair":
        """A pair as it is written: {"ar": NAME, "diffusion": NAME}, and options.

        :raises OptionError: for what is missing, unknown, or of another kind.
        """
        names = [item.name for item in fields(cls)]
        for name in given.keys() - set(names):
            raise OptionError(message("{pair} has {}={}; it takes {}", name, shown(given[name]), ", ".join(names)))
        values: dict[str, Any] = {
            name: str(value) if isinstance(value, Path) else value for name, value in given.items()
        }
        for name, (kind, wanted) in _KINDS.items():
            value, needed = values.get(name), name in ("ar", "diffusion")
            right = isinstance(value, kind) and value is not True and value is not False
            if kind is int and right:
                right = 1 <= int(str(value)) <= 16
            if not right and (needed or name in values) and not (value is None and name == "draft_length"):
                raise OptionError(message("{pair} has {}={}; give {}", name, shown(value), wanted))
        return cls(**values)


def pairs_file() -> Path:
    """Where they are: in the folder that `DLLM_CACHE` names, else with the user's settings."""
    return Path(os.environ.get("DLLM_CACHE") or click.get_app_dir("dllm-plugins")) / "pairs.json"


def pairs() -> dict[str, Pair]:
    """All registered pairs by name.

    :raises CheckpointError: if the file cannot be read or understood.
    """
    try:
        found = json.loads(pairs_file().read_bytes())
        return {name: Pair.of(stored) for name, stored in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError, OptionError) as error:
        raise CheckpointError(
            f"cannot read the registered pairs in {pairs_file()} ({error}); mend the file, or delete it and run "
            f"`llm dllm pair` again"
        ) from error


def add(name: str, pair: Pair) -> None:
    """Register a pair.

    :raises OptionError: if the name is taken by another one.
    """
    with _changed() as found:
        if name in found:
            raise OptionError(f"{name!r} is registered already, for {found[name].ar} and {found[name].diffusion}")
        found[name] = pair


def remove(name: str) -> Pair | None:
    """Forget a pair; None if there is none of this name."""
    if name not in pairs():
        return None
    with _changed() as found:
        return found.pop(name, None)


def _changed() -> AbstractContextManager[dict[str, Pair]]:
    """What is registered, to be changed."""
    from dllm_plugins.files.whole import changed

    return changed(pairs_file(), pairs, asdict, "DLLM_CACHE names another folder")
