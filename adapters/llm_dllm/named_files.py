"""GGUF files that are models of llm without being registered: those somebody names by their path.

llm asks for models before it looks at its arguments, so what it is about to look for has to
be found first. llm imports this on every call, so nothing here may import torch or transformers.
"""

import sqlite3
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import llm

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import read_json
from dllm_plugins.presets import PREFIX

SUFFIX = ".gguf"
#: Arguments that go on with a conversation, whose model the log names.
_GO_ON = frozenset({"-c", "--continue", "--cid", "--conversation"})


def named_files() -> dict[Path, set[str]]:
    """Files that exist, with every name they go by: of the command line, aliases, the default model, the log."""
    found: dict[Path, set[str]] = {}
    for name in {*_of_command_line(), *_of_settings(), *_of_conversations()}:
        if name.lower().endswith(SUFFIX) and (path := _file(name)):
            found.setdefault(path, set()).add(name)
    return found


def named_places() -> set[str]:
    """What `-m` names by a path where there is no file: a folder, or nothing, which is then said."""
    return {name for name in _models_of_command_line() if _is_path(name) and _file(name) is None}


def named_presets() -> set[str]:
    """What `-m` names as plug-ins name their models; whether there is one is found when it is loaded."""
    found = {name for name in _models_of_command_line() if name.startswith(PREFIX) and not _is_path(name)}
    return found - _aliases().keys() if found else found


def _is_path(name: str) -> bool:
    """Whether a name can only be that of a place; OWNER/NAME may be another plug-in's model."""
    return name.startswith(("./", "../", "/", "~")) or name.lower().endswith(SUFFIX)


def _models_of_command_line() -> Iterator[str]:
    for flag, value in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=False):
        if flag in ("-m", "--model"):
            yield value
        elif flag.startswith("--model="):
            yield flag.removeprefix("--model=")
        elif flag.startswith("-m"):
            yield flag.removeprefix("-m")


def _file(name: str) -> Path | None:
    """The file of this name, if there is one; a prompt may end like one."""
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _of_command_line() -> Iterator[str]:
    for argument in sys.argv[1:]:
        yield argument
        # As in --model=FILE and -mFILE.
        yield argument.partition("=")[2]
        yield argument.removeprefix("-m")


def _of_settings() -> Iterator[str]:
    """What aliases stand for, and the default model."""
    yield llm.get_default_model()  # type: ignore[no-untyped-call]
    yield from filter(_is_text, _aliases().values())


def _aliases() -> dict[str, Any]:
    try:
        aliases = read_json(_user_folder() / "aliases.json")
    except CheckpointError:
        # llm itself says what is wrong with it.
        return {}
    return aliases if isinstance(aliases, dict) else {}


def _of_conversations() -> Iterable[str]:
    """Models of the logged conversations, if one of them goes on."""
    log = _user_folder() / "logs.db"
    goes_on = _GO_ON.intersection(argument.partition("=")[0] for argument in sys.argv)
    if not goes_on or not log.is_file():
        return []
    found: set[str] = set()
    with closing(sqlite3.connect(f"{log.as_uri()}?mode=ro", uri=True)) as database:
        for table in ("conversations", "turns"):
            try:
                rows = database.execute(f"select distinct model from {table} where model like '%{SUFFIX}'").fetchall()
            except sqlite3.Error:
                # Another version of llm keeps its log otherwise.
                continue
            found.update(model for (model,) in rows)
    return found


def _user_folder() -> Path:
    # llm does not type this function.
    folder: Path = llm.user_dir()  # type: ignore[no-untyped-call]
    return folder


def _is_text(value: object) -> bool:
    return isinstance(value, str)
