"""The checkpoints that `llm dllm add` registered: one JSON file in llm's own folder.

llm reads it on every call, so nothing here imports more than it must.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import llm

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError

if TYPE_CHECKING:
    from llm_dllm.entry import Entry


def registry_file() -> Path:
    """Where it is, beside llm's aliases and keys; `LLM_USER_PATH` moves it."""
    # llm does not type this function.
    folder: Path = llm.user_dir()  # type: ignore[no-untyped-call]
    return folder / "dllm-models.json"


def entries() -> "dict[str, Entry]":
    """All registered checkpoints by name.

    :raises CheckpointError: if the file cannot be read or understood.
    """
    try:
        text = registry_file().read_bytes()
        # Most users have registered none, and need not wait for these classes.
        from llm_dllm.entry import parsed

        return parsed(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot read the registered checkpoints in {registry_file()} ({error}); mend the file, or delete it and "
            f"run `llm dllm add` again"
        ) from error


def add(name: str, entry: "Entry") -> None:
    """Register a checkpoint.

    :raises OptionError: if the name is taken.
    """
    with _changed() as found:
        if name in found:
            raise OptionError(f"{name!r} is registered already, for {found[name].source}; choose another --name")
        found[name] = entry


def remove(name: str) -> "Entry":
    """Forget a checkpoint; its files stay.

    :raises OptionError: if there is none of this name.
    """
    with _changed() as found:
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise OptionError(f"no checkpoint {name!r} is registered; registered: {known}")
        return found.pop(name)


def _changed() -> "AbstractContextManager[dict[str, Entry]]":
    """What is registered, to be changed."""
    from dllm_plugins.files.whole import changed

    return changed(registry_file(), entries, lambda entry: entry.model_dump(), "LLM_USER_PATH names another folder")
