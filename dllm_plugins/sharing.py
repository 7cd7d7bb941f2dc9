"""One loaded model for several callers: threads, asyncio tasks, interleaved streams.

Whoever needs an event runs the next pass, for every row; the events of others wait for
them. No caller holds the engine for longer than one pass.
"""

import threading
from collections import deque
from collections.abc import Generator
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from weakref import WeakValueDictionary

from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request


class SharedModel:
    """A model with one engine that any number of callers may stream from at once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._engine = model.engine()
        self._lock = threading.Lock()
        self._events: dict[int, deque[Event | Exception]] = {}
        self._leaving: deque[int] = deque()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Events of one request until it finishes; closing the generator frees its row.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        (number,) = self._admit([request])
        try:
            event = None
            while not isinstance(event, Finish):
                event = self._next(number)
                yield event
        finally:
            self._leave([number])

    def generate(self, requests: Sequence[Request]) -> list[Finish]:
        """Decode several requests together; results in the order of `requests`.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        numbers = self._admit(requests)
        try:
            return [self._finish(number) for number in numbers]
        finally:
            self._leave(numbers)

    def _admit(self, requests: Sequence[Request]) -> list[int]:
        """All or none."""
        numbers: list[int] = []
        with self._lock, ExitStack() as undo:
            for request in requests:
                numbers.append(self._engine.admit(request))
                undo.callback(self._engine.cancel, numbers[-1])
            undo.pop_all()
            self._events |= {number: deque() for number in numbers}
        return numbers

    def _finish(self, number: int) -> Finish:
        while True:
            event = self._next(number)
            if isinstance(event, Finish):
                return event

    def _next(self, number: int) -> Event:
        own = self._events[number]
        with self._lock:
            while not own:
                self._pass()
            event = own.popleft()
        if isinstance(event, Exception):
            raise event
        return event

    def _pass(self) -> None:
        """One pass for all. If it fails, every row has lost its state, so every caller is told."""
        self._drop()
        try:
            events = self._engine.step()
        except Exception as error:
            for number in self._engine.active:
                self._engine.cancel(number)
                self._events[number].append(error)
            raise
        for event in events:
            self._events[event.row].append(event)

    def _leave(self, numbers: list[int]) -> None:
        """Free rows without waiting: a generator may be closed by the garbage collector in mid-pass."""
        self._leaving.extend(numbers)
        if self._lock.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        while self._leaving:
            number = self._leaving.popleft()
            self._engine.cancel(number)
            self._events.pop(number, None)


_models: WeakValueDictionary[tuple[tuple[str, str], ...], SharedModel] = WeakValueDictionary()
_loading = threading.Lock()


def shared_model(name: str = "dllm", **options: Any) -> SharedModel:
    """The model of these options, loaded once per process and freed with its last holder.

    :param options: see :func:`dllm_plugins.models.load_model`.
    """
    given = {"name": name} | {key: str(value) for key, value in options.items() if value is not None}
    key = tuple(sorted(given.items()))
    with _loading:
        found = _models.get(key)
        if found is None:
            found = SharedModel(load_model(name, **options))
            _models[key] = found
        return found
