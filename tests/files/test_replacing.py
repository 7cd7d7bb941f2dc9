"""A folder's files that are replaced together: whoever is killed at it leaves the old ones, or new ones to be moved."""

import json
import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.replacing import INDEX
from dllm_plugins.files.replacing import SINGLE
from dllm_plugins.files.replacing import finish
from dllm_plugins.files.replacing import replacing
from dllm_plugins.files.whole import alone

#: How many files weights are in.
FILES = [(1, 1), (1, 2), (2, 1), (3, 2)]


def checkpoint(folder: Path, text: str, files: int) -> None:
    """A folder all of whose files hold the same text, or, as the index, name files that do."""
    names = [f"model-{place:05}-of-{files:05}.safetensors" for place in range(files)] if files > 1 else [SINGLE]
    (folder / "custom_generate").mkdir(parents=True, exist_ok=True)
    for name in (*names, "config.json", "generation_config.json", "custom_generate/generate.py"):
        (folder / name).write_text(text)
    if files > 1:
        (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys("ab", names[0]) | {text: names[-1]}}))


def held(folder: Path) -> dict[str, str]:
    """What is there, hidden files apart."""
    files = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in files.items() if not name.startswith(".")}


@contextmanager
def photographed(folder: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Copies of a folder as it is before each change in it: what a process that is killed there leaves."""
    found: list[Path] = []

    def after_copying(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            with patch.context() as original:
                for name, function in functions.items():
                    original.setattr(os, name, function)
                found.append(copies / str(len(found)))
                shutil.copytree(folder, found[-1])
            return change(*args, **kwargs)

        return changed

    functions = {name: getattr(os, name) for name in ("mkdir", "rename", "replace", "rmdir", "unlink")}
    with monkeypatch.context() as patch:
        for name, function in functions.items():
            patch.setattr(os, name, after_copying(function))
        yield found


@pytest.mark.parametrize(("first", "second"), FILES)
def test_killed_anywhere(first: int, second: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is the old files, or becomes the new ones; a file of the user's stays."""
    place = tmp_path / "place"
    checkpoint(tmp_path / "old", "old", first)
    checkpoint(tmp_path / "new", "new", second)
    shutil.copytree(tmp_path / "old", place)
    for folder in (place, tmp_path / "old", tmp_path / "new"):
        (folder / "notes.txt").write_text("mine")
    old, new = held(tmp_path / "old"), held(tmp_path / "new")
    with photographed(place, tmp_path / "copies", monkeypatch) as copies, replacing(place) as part:
        checkpoint(part, "new", second)
    assert held(place) == new
    mixed, outcomes = 0, []
    for copy in copies:
        mixed += held(copy) not in (old, new)
        finish(copy)
        outcomes.append(held(copy))
        assert outcomes[-1] in (old, new)
        assert not (copy / ".checkpoint.ready").exists()
        with replacing(copy) as part:
            checkpoint(part, "new", second)
        assert held(copy) == new
    assert mixed > 2
    assert outcomes[0] == old
    assert outcomes[-1] == new
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for what Ctrl-C leaves, which tidies up first; finishing may be interrupted, too."""
    checkpoint(tmp_path / "place", "old", 2)
    checkpoint(tmp_path / "new", "new", 1)
    old, new, place = held(tmp_path / "place"), held(tmp_path / "new"), tmp_path / "place"
    replace = os.replace
    seen: list[dict[str, str]] = []
    for attempt in (_save, finish, finish, finish, finish):

        def once(*args: Any) -> None:
            seen.append(held(place))
            if len(seen) % 2 == 0:
                raise KeyboardInterrupt
            replace(*args)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(os, "replace", once)
            attempt(place)
        assert (place / ".checkpoint.ready").exists() == (held(place) != new)
    assert held(place) == new != old
    assert len(seen) > len(new)


def _save(folder: Path) -> None:
    with replacing(folder) as part:
        checkpoint(part, "new", 1)


def test_what_cannot_be_finished_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder cannot be written; the remedy is named, and helps."""
    checkpoint(tmp_path / ".checkpoint.ready", "new", 1)
    checkpoint(tmp_path, "old", 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError("read-only")))
        with pytest.raises(CheckpointError, match=r"broken off.*read-only.*save it again"):
            finish(tmp_path)
    assert finish(tmp_path)
    assert not finish(tmp_path)
    assert set(held(tmp_path).values()) == {"new"}


def test_who_saves_where_somebody_saves(tmp_path: Path) -> None:
    """Refused, and so is a file."""
    with alone(tmp_path / "checkpoint"), pytest.raises(CheckpointError, match="another process"), replacing(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="is a file; name a folder"), replacing(tmp_path / "file"):
        pass


def test_only_weights_are_removed(tmp_path: Path) -> None:
    """Whatever the old index names."""
    checkpoint(tmp_path, "old", 2)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "notes.txt", "b": "../x.safetensors", "c": 3}}))
    (tmp_path / "notes.txt").write_text("mine")
    _save(tmp_path)
    names = {"config.json", "generation_config.json", "custom_generate/generate.py", SINGLE, "notes.txt"}
    assert held(tmp_path).keys() == names
