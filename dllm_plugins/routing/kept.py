"""What was measured of modes, kept in the cache folder by model and machine, and shared by any number of processes."""

import atexit
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.whole import beside
from dllm_plugins.routing.bandit import Situation

#: Goes up when something else is kept, so that older files are begun anew.
VERSION = 1
#: The file is written no more often than once in so many seconds, and at the end of the process.
_PAUSE = 2.0
_Change = tuple[str, str, Callable[[Situation], None]]


class Kept(BaseModel):
    """What is in the file: situations by model, machine and number of threads, then by what they are."""

    model_config = ConfigDict(extra="forbid")

    version: int = VERSION
    models: dict[str, dict[str, Situation]] = {}

    def at(self, model: str, situation: str) -> Situation:
        """That of a model; empty if it is new."""
        return self.models.setdefault(model, {}).setdefault(situation, Situation())


class Book:
    """The file, with what this process has added and not written yet. Any thread may use it.

    :param clock: seconds; another one in tests.
    """

    def __init__(self, place: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.place = place
        self._clock = clock
        self._lock = Lock()
        self._kept = Kept()
        self._pending: list[_Change] = []
        self._written: float | None = None
        self._process = os.getpid()
        self._warned = False

    def look(self) -> Kept:
        """All that is known; not to be changed."""
        with self._lock:
            self._begin()
            return self._kept.model_copy(deep=True)

    def ask(self, model: str, situation: str, question: Callable[[Situation], tuple[str, str]]) -> tuple[str, str]:
        """What a situation answers, which is left as it is."""
        with self._lock:
            self._begin()
            return question(self._kept.models.get(model, {}).get(situation, Situation()))

    def choose(self, model: str, situation: str, question: Callable[[Situation], tuple[str, str]]) -> tuple[str, str]:
        """The same, and the mode that comes first in the answer counts as tried: others do not try it at once too."""
        with self._lock:
            self._begin()
            found = question(self._kept.at(model, situation))
            self._change(model, situation, lambda known: known.tried(found[0]))
            return found

    def learn(self, model: str, situation: str, mode: str, tokens: int, seconds: float) -> None:
        """An answer has ended; see :meth:`Situation.learn`. A file that cannot be written is done without."""
        with self._lock:
            self._begin()
            self._change(model, situation, lambda known: known.learn(mode, tokens, seconds))
            if self._written is None or self._clock() - self._written >= _PAUSE:
                self._write()

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            if self._pending and self._process == os.getpid():
                self._write()

    def forget(self) -> bool:
        """Measure all anew; whether there was anything to forget."""
        with self._lock:
            there = self.place.exists() or bool(self._kept.models)
            self._kept, self._pending, self._written = Kept(), [], None
            self.place.unlink(missing_ok=True)
            return there

    def _change(self, model: str, situation: str, change: Callable[[Situation], None]) -> None:
        change(self._kept.at(model, situation))
        self._pending.append((model, situation, change))

    def _begin(self) -> None:
        """Read the file the first time; a forked process leaves its parent's additions to the parent."""
        if self._process != os.getpid():
            self._process, self._pending, self._written = os.getpid(), [], None
        if self._written is None and not self._pending:
            self._kept = self._read()

    def _read(self) -> Kept:
        try:
            found = Kept.model_validate_json(self.place.read_bytes())
        except OSError:
            return Kept()
        except ValidationError:
            found = None
        if found is not None and found.version == VERSION:
            return found
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.place} is damaged or of another version; modes are measured anew, and it is replaced",
                stacklevel=2,
            )
        return Kept()

    def _write(self) -> None:
        """Put what was added to what others have written meanwhile."""
        with suppress(OSError, CheckpointError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with beside(self.place, wait=True) as part:
                found = self._read()
                for model, situation, change in self._pending:
                    change(found.at(model, situation))
                part.write_text(found.model_dump_json(indent=1), encoding="utf-8")
            self._kept, self._pending = found, []
        self._written = self._clock()


_books: dict[Path, Book] = {}
_making = Lock()


def routes_file() -> Path:
    """Where it is kept."""
    return cache_folder() / "routes.json"


def book() -> Book:
    """That of the cache folder; one in a process."""
    place = routes_file()
    with _making:
        if place not in _books:
            _books[place] = Book(place)
            atexit.register(_books[place].close)
        return _books[place]
