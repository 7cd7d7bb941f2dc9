"""A batch of calls in threads of their own, whose requests the engine takes in at once.

LangChain's callbacks, cache and retries belong to one call each, so each call of a batch
runs by itself up to its request. There it waits for the others.
"""

import threading
from collections import deque
from collections.abc import Callable
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed
from contextlib import suppress
from contextvars import ContextVar
from contextvars import copy_context
from typing import TYPE_CHECKING
from typing import TypeVar

from dllm_plugins.decoding.failing import caused
from dllm_plugins.decoding.failing import or_raise
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.request import Request

if TYPE_CHECKING:
    from dllm_plugins.sharing import SharedBatch
    from dllm_plugins.sharing import SharedModel

T = TypeVar("T")


class _RefusedError(Exception):
    """The engine took none of the batch's requests in."""


Events = Generator[tuple[int, Event], None, None]


class Together:
    """Where the calls of one batch meet.

    :param count: calls to wait for; 0 lets each go as it comes.
    """

    def __init__(self, count: int) -> None:
        self.given_up = False
        self._missing = count
        self._changed = threading.Condition()
        self._requests: list[Request] = []
        self._shared: SharedModel | None = None
        self._turn = threading.Lock()
        self._batch: SharedBatch | None = None
        self._source: Generator[tuple[int, Event | Failure], None, None] | None = None
        self._waiting: list[deque[Event | Failure]] = []
        self._failure: Exception | None = None

    def give_up(self) -> None:
        """End all calls: their rows are freed with the pass under way."""
        with self._changed:
            self.given_up = True
            self._changed.notify_all()

    def check(self) -> None:
        """Look whether to go on.

        :raises RequestError: if the batch was given up.
        """
        if self.given_up:
            raise RequestError("the batch of this request was given up; its rows are freed")

    def arrive(self, shared: "SharedModel | None" = None, request: Request | None = None) -> int | None:
        """Wait for the other calls, if there is a request that can join them.

        :returns: the request's place; None if it must go alone.
        :raises RequestError: if the batch was given up.
        """
        with self._changed:
            joins = request is not None and self._missing > 0 and self._shared in (None, shared)
            self._missing -= self._missing > 0
            self._changed.notify_all()
            if request is None or not joins:
                return None
            self._shared = shared
            self._requests.append(request)
            self._waiting.append(deque())
            place = len(self._requests) - 1
            self._changed.wait_for(lambda: self._missing == 0 or self.given_up)
        self.check()
        return place

    def pull(self, place: int) -> Event:
        """The next event of a request; whoever needs one runs the next pass for all.

        :raises _RefusedError: if the engine did not take the batch in.
        :raises DllmError: if this request has failed, or the batch was broken off.
        """
        with self._turn:
            while not self._waiting[place]:
                if self._failure is not None:
                    raise self._failure
                try:
                    at, event = next(self._begun())
                except DllmError as error:
                    self._failure = _RefusedError(str(error))
                    raise self._failure from error
                except BaseException as error:
                    # An interrupt ends the caller it hits, and the rows of all: the others must not read on as if
                    # theirs had come to an end.
                    self._failure = caused(f"the batch was broken off by {type(error).__name__}; ask again", error)
                    raise
                self._waiting[at].append(event)
            return or_raise(self._waiting[place].popleft())

    def _begun(self) -> Generator[tuple[int, Event | Failure], None, None]:
        if self._source is None:
            assert self._shared is not None, "a call has arrived"
            self._batch = self._shared.stream_batch(self._requests)
            self._source = self._batch.outcomes()
        return self._source

    def free(self, place: int) -> None:
        """Drop the row of a request that has not finished."""
        with self._turn:
            if self._batch is not None and self._failure is None:
                # It may have ended, or failed, since its caller was last here.
                with suppress(KeyError, DllmError):
                    self._batch.stop(place, 0)


class Seat:
    """One call's part in a batch: its first request joins, any further one goes alone."""

    def __init__(self, together: Together) -> None:
        self.together = together
        self._free = True

    def events(self, shared: "SharedModel", request: Request) -> Events:
        """Events of a request, decoded with those of the other calls.

        :raises RequestError: for a prompt that cannot be used, or if the batch was given up.
        :raises OptionError: for options the mode does not honour.
        """
        place = self.together.arrive(shared, request) if self._free else None
        self._free = False
        event: Event | None = None
        if place is not None:
            try:
                while not isinstance(event, Finish):
                    event = self.together.pull(place)
                    yield 0, event
                return
            except _RefusedError:
                # One request was refused, and with it the batch: each now learns its own fate.
                pass
            finally:
                if not isinstance(event, Finish):
                    self.together.free(place)
        yield from shared.stream_batch([request])

    def leave(self) -> None:
        """The call is over; nobody need wait for it."""
        if self._free:
            self.together.arrive()
            self._free = False


seat: ContextVar[Seat | None] = ContextVar("seat", default=None)


def in_threads(
    work: Callable[[int], T], count: int, workers: int | None = None, meet: bool = True
) -> Generator[tuple[int, T], None, None]:
    """(place, work(place)) as they come; a thread for each place unless `workers` says fewer.

    If the caller leaves early, requests under way end with their next pass.

    :param meet: whether the requests wait for one another.
    """
    size = max(count, 1) if workers is None else workers
    together = Together(count if meet and size >= count else 0)

    def start(place: int) -> T:
        own = Seat(together)
        seat.set(own)
        try:
            return work(place)
        finally:
            own.leave()

    with ThreadPoolExecutor(max_workers=size) as pool:
        places = {pool.submit(copy_context().run, start, place): place for place in range(count)}
        try:
            for done in as_completed(places):
                yield places[done], done.result()
        finally:
            together.give_up()
            for future in places:
                future.cancel()
