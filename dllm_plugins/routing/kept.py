"""What was measured of modes, kept in the cache folder by model and machine, and shared by any number of processes."""

import atexit
import os
import time
import warnings
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.whole import beside
from dllm_plugins.routing.bandit import Pool
from dllm_plugins.routing.bandit import Situation

#: Goes up when something else is kept, so that older files are begun anew.
VERSION = 2
#: The file is written no more often than once in so many seconds, and at the end of the process.
_PAUSE = 2.0
#: Most changes that wait for the file.
_MOST_PENDING = 1000
#: A situation and the wider ones that it belongs to, the narrowest first.
Places = Sequence[str]
_Question = Callable[[Situation, Sequence[Pool]], tuple[str, str]]
_Change = tuple[str, Places, Callable[[Pool], None]]


class ModelMeasurements(BaseModel):
    """What was measured of a model on a machine with a number of threads: in each situation, and in wider ones."""

    model_config = ConfigDict(extra="forbid")

    situations: dict[str, Situation] = {}
    wider: dict[str, Pool] = {}

    def at(self, places: Places) -> tuple[Situation, list[Pool]]:
        """A situation and the wider ones, the widest first; those that are new are empty."""
        narrow, *wider = places
        pools = [self.wider.setdefault(place, Pool()) for place in reversed(wider)]
        return self.situations.setdefault(narrow, Situation()), pools


class _Version(BaseModel):
    version: int = VERSION


class KeptMeasurements(BaseModel):
    """What is in the file: by model, machine and number of threads."""

    model_config = ConfigDict(extra="forbid")

    version: int = VERSION
    models: dict[str, ModelMeasurements] = {}

    def at(self, model: str, places: Places) -> tuple[Situation, list[Pool]]:
        """That of a model."""
        return self.models.setdefault(model, ModelMeasurements()).at(places)

    @property
    def situations(self) -> list[Situation]:
        """Of all models."""
        return [found for known in self.models.values() for found in known.situations.values()]


class Book:
    """The file, with what this process has added and not written yet. Any thread may use it.

    :param clock: seconds; another one in tests.
    """

    def __init__(self, place: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.place = place
        self._clock = clock
        self._lock = Lock()
        self._kept = KeptMeasurements()
        self._pending: list[_Change] = []
        self._written: float | None = None
        self._process = os.getpid()
        self._warned = False

    def look(self) -> KeptMeasurements:
        """All that is known; not to be changed."""
        with self._lock:
            self._begin()
            return self._kept.model_copy(deep=True)

    def ask(self, model: str, places: Places, question: _Question) -> tuple[str, str]:
        """What a situation answers, which is left as it is."""
        with self._lock:
            self._begin()
            known = self._kept.models.get(model, ModelMeasurements())
            narrow, *wider = places
            pools = [known.wider.get(place, Pool()) for place in reversed(wider)]
            return question(known.situations.get(narrow, Situation()), pools)

    def choose(self, model: str, places: Places, question: _Question) -> tuple[str, str]:
        """The same, and the mode that comes first in the answer counts as tried: others do not try it at once too."""
        with self._lock:
            self._begin()
            found = question(*self._kept.at(model, places))
            self._change(model, places, lambda known: known.tried(found[0]))
            return found

    def learn(self, model: str, places: Places, mode: str, tokens: int, seconds: float) -> None:
        """A piece has ended; see :meth:`Pool.learn`. A file that cannot be written is done without."""
        with self._lock:
            self._begin()
            self._change(model, places, lambda known: known.learn(mode, tokens, seconds))
            if self._written is None or self._clock() - self._written >= _PAUSE:
                self._write()

    def give_back(self, model: str, places: Places, mode: str) -> None:
        """A choice came to nothing that could be measured."""
        with self._lock:
            self._begin()
            self._change(model, places, lambda known: known.untried(mode))

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            if self._pending and self._process == os.getpid():
                self._write()

    def forget(self) -> bool:
        """Measure all anew; whether there was anything to forget."""
        with self._lock:
            there = self.place.exists() or bool(self._kept.models)
            self._kept, self._pending, self._written = KeptMeasurements(), [], None
            self.place.unlink(missing_ok=True)
            return there

    def _change(self, model: str, places: Places, change: Callable[[Pool], None]) -> None:
        _everywhere(self._kept, (model, places, change))
        self._pending.append((model, places, change))

    def _begin(self) -> None:
        """Read the file the first time; a forked process leaves its parent's additions to the parent."""
        if self._process != os.getpid():
            self._process, self._pending, self._written = os.getpid(), [], None
        if self._written is None and not self._pending:
            self._kept = self._read()

    def _read(self) -> KeptMeasurements:
        try:
            text = self.place.read_bytes()
            if _Version.model_validate_json(text).version in range(1, VERSION):
                return KeptMeasurements()
            found = KeptMeasurements.model_validate_json(text)
        except OSError:
            return KeptMeasurements()
        except ValidationError:
            found = None
        if found is not None and found.version == VERSION:
            return found
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.place} is damaged or of a later version; modes are measured anew, and it is replaced",
                stacklevel=2,
            )
        return KeptMeasurements()

    def _write(self) -> None:
        """Put what was added to what others have written meanwhile."""
        with suppress(OSError, CheckpointError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            with beside(self.place, wait=True) as part:
                found = self._read()
                for change in self._pending:
                    _everywhere(found, change)
                part.write_text(found.model_dump_json(indent=1), encoding="utf-8")
            self._kept, self._pending = found, []
        # Where nothing can be written, memory need not fill with what would be.
        del self._pending[:-_MOST_PENDING]
        self._written = self._clock()


def _everywhere(kept: KeptMeasurements, change: _Change) -> None:
    model, places, make = change
    narrow, wider = kept.at(model, places)
    for pool in (narrow, *wider):
        make(pool)


_books: dict[Path, Book] = {}
_making = Lock()


def routes_file() -> Path:
    """Where it is kept: `DLLM_ROUTES`, else in the cache folder."""
    chosen = os.environ.get("DLLM_ROUTES")
    return Path(chosen) if chosen else cache_folder() / "routes.json"


def book() -> Book:
    """That of the cache folder; one in a process."""
    place = routes_file()
    with _making:
        if place not in _books:
            _books[place] = Book(place)
            atexit.register(_books[place].close)
        return _books[place]
