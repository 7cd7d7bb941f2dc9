"""Requests on a shared model, within the limits of a call: timeout, retries, a batch given up."""

import asyncio
import time
from collections.abc import AsyncGenerator
from collections.abc import Coroutine
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import closing
from typing import Any
from typing import TypeVar

from dllm_plugins.errors import PassError
from dllm_plugins.errors import RequestError
from dllm_plugins.errors import calling
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.warm.model import WarmShared
from dllm_plugins.warm.opening import Answering
from langchain_dllm.call import LANGCHAIN
from langchain_dllm.call import Call
from langchain_dllm.gaps import Told
from langchain_dllm.together import Events
from langchain_dllm.together import seat

T = TypeVar("T")


class _Limits:
    """Watches one request, or several of one call."""

    def __init__(self, call: Call) -> None:
        self._timeout = call.timeout
        self._retries = call.max_retries
        self._began = time.monotonic()
        self._told = False
        self._seat = seat.get()

    def check(self, event: Event) -> None:
        """Look at an event before it is handed out.

        :raises RequestError: if the time is up or the batch was given up.
        """
        if self._seat is not None:
            self._seat.together.check()
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


def run(shared: Answering, requests: Sequence[Request], call: Call) -> Events:
    """(place, event) of requests that are decoded together; closing the generator frees their rows.

    :raises RequestError: for a prompt that cannot be used, or when the time is up.
    :raises OptionError: for options the mode does not honour.
    """
    limits = _Limits(call)
    while True:
        told = [Told(request) for request in requests]
        try:
            with calling(LANGCHAIN), closing(_source(shared, requests)) as source:
                for place, event in source:
                    limits.check(event)
                    for one in told[place].events(event):
                        yield place, one
            return
        except PassError as error:
            limits.retry(error)


def _source(shared: Answering, requests: Sequence[Request]) -> Events:
    own = seat.get()
    # A server's rows meet in the server.
    if own is not None and len(requests) == 1 and not isinstance(shared, WarmShared):
        return own.events(shared, requests[0])
    return iter(shared.stream_batch(requests))


async def arun(shared: Answering, request: Request, call: Call) -> AsyncGenerator[Event, None]:
    """Like :func:`run` for one request, with the passes in a thread.

    :raises RequestError: for a prompt that cannot be used, or when the time is up.
    :raises OptionError: for options the mode does not honour.
    """
    limits = _Limits(call)
    while True:
        told = Told(request)
        try:
            with calling(LANGCHAIN):
                async with aclosing(shared.astream(request)) as source:
                    async for event in source:
                        limits.check(event)
                        for one in told.events(event):
                            yield one
            return
        except PassError as error:
            limits.retry(error)


async def afinish(shared: Answering, request: Request, call: Call) -> Finish:
    """The end of :func:`arun`."""
    async with aclosing(arun(shared, request, call)) as source:
        event = [event async for event in source][-1]
    assert isinstance(event, Finish), "a stream ends with Finish"
    return event


async def together(answers: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them at once; if one fails, or the task is cancelled, all rows are freed."""
    tasks = [asyncio.ensure_future(answer) for answer in answers]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
