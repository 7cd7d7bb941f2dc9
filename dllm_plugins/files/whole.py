"""Files and folders that are there whole or not at all, however many processes write them and whichever is killed.

Everything is written beside its place, under a lock, and moved there in one step. What a
killed process left behind is removed by the next one that has the lock. Imports nothing
heavy: llm's start-up uses it.
"""

import json
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any
from typing import TypeVar

from dllm_plugins.errors import CheckpointError

T = TypeVar("T")


@contextmanager
def alone(place: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes and threads that ask for the same place out of the block.

    The lock is a file `.NAME.lock` beside it, which goes with the block. Where a process is
    killed it stays, but locks nothing.

    :param place: a file or folder, there or not, in a folder that exists.
    :param wait: False to raise instead of waiting for whoever is in the block.
    :raises CheckpointError: if another process is in the block, unless it is waited for.
    :raises OSError: if the folder cannot be written.
    """
    from filelock import FileLock
    from filelock import Timeout

    lock = FileLock(_hidden(place, "lock"), timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(f"another process is writing {place}; wait for it, or write elsewhere") from error
    try:
        yield
    finally:
        # While it is held: who waits for a file that is gone makes a new one. Windows removes it when it is released.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def whole(place: Path) -> Iterator[Path]:
    """A name beside `place` for a file or a folder that becomes `place` when the block ends well.

    It is removed before and after, and with it whatever is called like it with an ending of
    its own. To be used under :func:`alone`, of this place or of one that stands for it. An
    old folder is gone for an instant before the new one is there.
    """
    part = _hidden(place, "part")
    _sweep(part)
    try:
        yield part
        if part.is_dir():
            _replace_folder(part, place)
        elif part.exists():
            part.replace(place)
    finally:
        _sweep(part)


@contextmanager
def beside(place: Path, *, wait: bool = False) -> Iterator[Path]:
    """:func:`whole`, :func:`alone`.

    :param wait: whether to wait for another process that writes `place`.
    :raises CheckpointError: if another process is writing it, unless it is waited for.
    """
    with alone(place, wait=wait), whole(place) as part:
        yield part


@contextmanager
def changed(
    place: Path, read: Callable[[], dict[str, T]], stored: Callable[[T], Any], remedy: str
) -> Iterator[dict[str, T]]:
    """The things by their names in a JSON file, written back when the block ends well; who else changes it waits.

    :param read: reads the file, which need not be there.
    :param stored: what stands in it for one of them.
    :param remedy: what to do where it cannot be written.
    :raises CheckpointError: if the file cannot be written, and as `read` does.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with beside(place, wait=True) as part:
            found = read()
            yield found
            text = json.dumps({name: stored(one) for name, one in found.items()}, indent=2, ensure_ascii=False)
            part.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {place}: {error}; {remedy}") from error


def made_once(folder: Path, whose: str, which: str, make: Callable[[Path], object]) -> Path:
    """A file that is made of others and kept until they change; then it is made anew and the old one removed.

    :param whose: stands for what it is made of, `which` for the state of that.
    :param make: writes a file of the name it is given.
    :returns: `folder/WHOSE-WHICH`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{whose}-{which}"
    if target.exists():
        return target
    with alone(folder / whose):
        if not target.exists():
            with whole(target) as part:
                make(part)
        for old in (*folder.glob(f"{escape(whose)}-*"), *folder.glob(f".{escape(whose)}-*.part*")):
            if old != target:
                _remove(old)
    return target


def _hidden(place: Path, ending: str) -> Path:
    return place.with_name(f".{place.name.removeprefix('.')}.{ending}")


def _replace_folder(part: Path, place: Path) -> None:
    """A folder cannot be moved onto one that holds files."""
    old = part.with_name(f"{part.name}.old")
    if place.exists():
        place.replace(old)
    try:
        part.replace(place)
    except BaseException:
        if old.exists():
            old.replace(place)
        raise


def _sweep(part: Path) -> None:
    for left in (part, *part.parent.glob(f"{escape(part.name)}.*")):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
