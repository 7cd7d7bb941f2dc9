"""One loaded model for several callers: threads, asyncio tasks, interleaved streams.

Whoever needs an event runs the next pass, for every row; the events of others wait for
them. No caller holds the engine for longer than one pass.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from weakref import WeakKeyDictionary
from weakref import WeakValueDictionary

from dllm_plugins.caches.kept import KeptPrefixes
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.fair import FairLock
from dllm_plugins.models import LoadOptions
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request


class SharedModel:
    """A model with one engine that any number of callers may use at once.

    Prefixes of finished rows are kept, as many positions as the model's context holds,
    so that the next turn of a conversation forwards only what is new.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.prefixes = KeptPrefixes(model.denoiser.spec.context)
        self._engine = model.engine(self.prefixes)
        self._lock = FairLock()
        self._events: dict[int, deque[Event | Exception]] = {}
        self._leaving: deque[int] = deque()
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Events of one request until it finishes; closing the generator frees its row.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        for _, event in self.stream_batch([request]):
            yield event

    def stream_batch(self, requests: Sequence[Request]) -> "Batch":
        """Events of several requests as (place in `requests`, event); see :class:`Batch`.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        return Batch(self, requests)

    def generate(self, requests: Sequence[Request]) -> list[Finish]:
        """Decode several requests together; results in the order of `requests`.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        done = {place: event for place, event in self.stream_batch(requests) if isinstance(event, Finish)}
        return [done[place] for place in range(len(requests))]

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Like :meth:`stream`, for asyncio: passes run in a thread, one for all tasks of a loop.

        A cancelled task frees its row at once, or after the pass that is under way.
        """
        number = await self._aadmit(request)
        try:
            event: Event | None = None
            while not isinstance(event, Finish):
                event = await self._anext(number)
                yield event
        finally:
            self._leave([number])

    async def _aadmit(self, request: Request) -> int:
        admitting = asyncio.ensure_future(asyncio.to_thread(self._admit, [request]))
        try:
            (number,) = await asyncio.shield(admitting)
        except asyncio.CancelledError:
            admitting.add_done_callback(lambda done: None if done.exception() else self._leave(done.result()))
            raise
        return number

    async def _anext(self, number: int) -> Event:
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            if self._events[number]:
                return self._take([number])[1]
            return (await asyncio.to_thread(self._take, [number]))[1]

    @contextmanager
    def _held(self) -> Iterator[None]:
        """The engine, for one caller at a time; those who left meanwhile are let go afterwards."""
        with self._lock:
            yield
        self._leave([])

    def _admit(self, requests: Sequence[Request]) -> list[int]:
        """All or none."""
        numbers: list[int] = []
        with self._held(), ExitStack() as undo:
            for request in requests:
                numbers.append(self._engine.admit(request))
                undo.callback(self._engine.cancel, numbers[-1])
            undo.pop_all()
            self._events |= {number: deque() for number in numbers}
        return numbers

    def _take(self, numbers: Sequence[int]) -> tuple[int, Event]:
        """The next event of any of these rows, after as many passes as that needs."""
        with self._held():
            while True:
                for number in numbers:
                    if self._events[number]:
                        event = self._events[number].popleft()
                        if isinstance(event, Exception):
                            raise event
                        return number, event
                self._pass()

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

    def _stop(self, number: int, length: int) -> Finish:
        with self._held():
            waiting = list(self._events[number])
            self._events[number].clear()
            for event in waiting:
                if isinstance(event, Finish):
                    text = self.model.tokenizer.decode(list(event.tokens[:length]), skip_special_tokens=True)
                    return event.cut(length, text)
            return self._engine.stop(number, length)

    def _leave(self, numbers: Sequence[int]) -> None:
        """Free rows without waiting: a generator may be closed by the garbage collector in mid-pass.

        Whoever holds the engine then looks again when done.
        """
        self._leaving.extend(numbers)
        while self._leaving and self._lock.try_acquire():
            try:
                self._drop()
            finally:
                self._lock.release()

    def _drop(self) -> None:
        while self._leaving:
            number = self._leaving.popleft()
            self._engine.cancel(number)
            self._events.pop(number, None)


class Batch:
    """The events of several requests while they are decoded together.

    Iterate once; closing the iterator frees the rows that are not done.
    """

    def __init__(self, shared: SharedModel, requests: Sequence[Request]) -> None:
        self._shared = shared
        self._requests = requests
        self._places: dict[int, int] = {}

    def __iter__(self) -> Generator[tuple[int, Event], None, None]:
        """(place in the batch, event) until every row has finished or was stopped."""
        shared = self._shared
        self._places = {number: place for place, number in enumerate(shared._admit(self._requests))}
        numbers = list(self._places)
        try:
            while self._places:
                number, event = shared._take(list(self._places))
                place = self._places[number]
                if isinstance(event, Finish):
                    del self._places[number]
                yield place, event
        finally:
            shared._leave(numbers)

    def stop(self, place: int, length: int) -> Finish:
        """End one row, its answer cut to `length` tokens; no more of its events come.

        If the row has ended by itself already, its Finish may still be waiting: it is cut too.

        :raises KeyError: if the row has no events to come.
        """
        number = next(number for number, known in self._places.items() if known == place)
        del self._places[number]
        return self._shared._stop(number, length)


_models: WeakValueDictionary[tuple[tuple[str, str], ...], SharedModel] = WeakValueDictionary()
_loading = threading.Lock()


def shared_model(name: str = "dllm", **options: Any) -> SharedModel:
    """The model of these options, loaded once per process and freed with its last holder.

    :param options: see :func:`dllm_plugins.models.load_model`.
    """
    defaults = asdict(LoadOptions())
    given = {option: str(value) for option, value in options.items() if value != defaults.get(option)}
    key = tuple(sorted({"name": name, **given}.items()))
    with _loading:
        found = _models.get(key)
        if found is None:
            found = SharedModel(load_model(name, **options))
            _models[key] = found
        return found
