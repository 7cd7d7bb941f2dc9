"""The checkpoints that `llm dllm add` registered: one JSON file in llm's own folder.

llm reads it on every call, so nothing here may import torch or transformers.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import llm
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import TypeAdapter
from pydantic import ValidationError

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.whole import beside


class Facts(BaseModel):
    """What `llm dllm models` shows of a checkpoint, found out when it was added."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    parameters: int
    size: int
    licence: str
    attention: str
    cache: str
    sampler: str
    sampler_reason: str = ""

    def why(self) -> str:
        """The sampler, and what said so; entries of earlier versions tell only the one."""
        return f"{self.sampler}: {self.sampler_reason}" if self.sampler_reason else self.sampler


class Entry(BaseModel):
    """One registered checkpoint.

    :param source: the folder or the hub id it was added by.
    :param folder: where its files were then.
    :param family, preset, mask_id: see :class:`dllm_plugins.models.LoadOptions`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    folder: str
    family: str | None = None
    preset: str | None = None
    mask_id: int | None = None
    facts: Facts


_ENTRIES = TypeAdapter(dict[str, Entry])


def registry_file() -> Path:
    """Where it is, beside llm's aliases and keys; `LLM_USER_PATH` moves it."""
    # llm does not type this function.
    folder: Path = llm.user_dir()  # type: ignore[no-untyped-call]
    return folder / "dllm-models.json"


def entries() -> dict[str, Entry]:
    """All registered checkpoints by name.

    :raises CheckpointError: if the file cannot be read or understood.
    """
    try:
        return _ENTRIES.validate_json(registry_file().read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
    except OSError as error:
        reason = str(error)
    raise CheckpointError(
        f"cannot read the registered checkpoints in {registry_file()} ({reason}); mend the file, or delete it and run "
        f"`llm dllm add` again"
    )


def add(name: str, entry: Entry) -> None:
    """Register a checkpoint.

    :raises OptionError: if the name is taken.
    """
    with _changed() as found:
        if name in found:
            raise OptionError(f"{name!r} is registered already, for {found[name].source}; choose another --name")
        found[name] = entry


def remove(name: str) -> Entry:
    """Forget a checkpoint; its files stay.

    :raises OptionError: if there is none of this name.
    """
    with _changed() as found:
        if name not in found:
            known = ", ".join(sorted(found)) or "none"
            raise OptionError(f"no checkpoint {name!r} is registered; registered: {known}")
        return found.pop(name)


@contextmanager
def _changed() -> Iterator[dict[str, Entry]]:
    """What is registered, written back when the block ends well; other processes that change it wait meanwhile.

    :raises CheckpointError: if the file cannot be read, understood or written.
    """
    try:
        with beside(registry_file(), wait=True) as part:
            found = entries()
            yield found
            text = json.dumps({name: entry.model_dump() for name, entry in found.items()}, indent=2, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {registry_file()}: {error}; LLM_USER_PATH names another folder") from error
