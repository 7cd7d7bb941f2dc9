"""Requests on a shared model, within the limits of a call: timeout, retries, a batch given up."""

import threading
import time
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import as_completed
from contextlib import aclosing
from contextlib import closing
from contextvars import ContextVar
from contextvars import copy_context
from typing import TypeVar

from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.request import Request
from dllm_plugins.sharing import SharedModel
from langchain_dllm.call import Call

T = TypeVar("T")
#: What a failed pass raises, running out of memory included.
PASS_ERRORS = (RuntimeError, MemoryError)
_given_up: ContextVar[threading.Event | None] = ContextVar("_given_up", default=None)


class _Limits:
    """Watches one request, or several of one call."""

    def __init__(self, call: Call) -> None:
        self._timeout = call.timeout
        self._retries = call.max_retries
        self._began = time.monotonic()
        self._told = False
        self._given_up = _given_up.get()

    def check(self, event: Event) -> None:
        """Look at an event before it is handed out.

        :raises RequestError: if the time is up or the batch was given up.
        """
        if self._given_up is not None and self._given_up.is_set():
            raise RequestError("the batch of this request was given up; its rows are freed")
        if self._timeout is not None and time.monotonic() - self._began > self._timeout:
            raise RequestError(
                f"the answer took longer than timeout={self._timeout} seconds; raise timeout or lower max_tokens"
            )
        self._told = self._told or isinstance(event, Commit)

    def retry(self, error: Exception) -> None:
        """Allow another attempt, as long as nothing final was handed out.

        :raises Exception: the error, if there is no attempt left.
        """
        if self._told or self._retries == 0:
            raise error
        self._retries -= 1


def run(shared: SharedModel, requests: Sequence[Request], call: Call) -> Generator[tuple[int, Event], None, None]:
    """(place, event) of requests that are decoded together; closing the generator frees their rows.

    :raises RequestError: for a prompt that cannot be used, or when the time is up.
    :raises OptionError: for options the mode does not honour.
    """
    limits = _Limits(call)
    while True:
        try:
            with closing(iter(shared.stream_batch(requests))) as source:
                for place, event in source:
                    limits.check(event)
                    yield place, event
            return
        except PASS_ERRORS as error:
            limits.retry(error)


async def arun(shared: SharedModel, request: Request, call: Call) -> AsyncGenerator[Event, None]:
    """Like :func:`run` for one request, with the passes in a thread.

    :raises RequestError: for a prompt that cannot be used, or when the time is up.
    :raises OptionError: for options the mode does not honour.
    """
    limits = _Limits(call)
    while True:
        try:
            async with aclosing(shared.astream(request)) as source:
                async for event in source:
                    limits.check(event)
                    yield event
            return
        except PASS_ERRORS as error:
            limits.retry(error)


def in_threads(
    work: Callable[[int], T], count: int, workers: int | None = None
) -> Generator[tuple[int, T], None, None]:
    """(place, work(place)) as they come; a thread for each place unless `workers` says fewer.

    If the caller leaves early, requests under way end with their next pass.
    """
    given_up = threading.Event()

    def start(place: int) -> T:
        _given_up.set(given_up)
        return work(place)

    with ThreadPoolExecutor(max_workers=workers or max(count, 1)) as pool:
        places = {pool.submit(copy_context().run, start, place): place for place in range(count)}
        try:
            for done in as_completed(places):
                yield places[done], done.result()
        finally:
            given_up.set()
            for future in places:
                future.cancel()
