"""Answers of HTTP: JSON, and streams that end when their client leaves."""

import asyncio
import json
from collections.abc import AsyncGenerator
from collections.abc import Coroutine
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

T = TypeVar("T")
#: Ends a stream of the two older interfaces.
DONE = "data: [DONE]\n\n"


class ClientLeftError(Exception):
    """Nobody waits for the answer any more."""


class Json(Response):
    """JSON in ASCII: half a surrogate pair, which users may send, is no text that could be encoded."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(json.dumps(content, separators=(",", ":")), status, headers)


class EventStream(Response):
    """Server-sent events, given up as soon as the client has left."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[str, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI. Whether the client is there is asked beside sending: a slow one is not gone."""
        try:
            await unless_left(receive, self._send(send))
        except (ClientLeftError, OSError):
            # Newer servers raise an OSError where one sends to nobody.
            return

    async def _send(self, send: Send) -> None:
        async with aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for text in events:
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def sse(data: Mapping[str, Any], event: str = "") -> str:
    """A server-sent event."""
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {json.dumps(data, separators=(',', ':'))}\n\n"


async def unless_left(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled if the client leaves.

    :param receive: what tells of the client; its body must have been read.
    :raises ClientLeftError: if it has left.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeftError
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
