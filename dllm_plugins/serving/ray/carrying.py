"""What goes between an ingress and a server: a request with its body, and messages of ASGI on the way back."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.types import ASGIApp
from starlette.types import Message
from starlette.types import Scope

#: What applications read of a scope; the rest belongs to the server that made it.
_CARRIED = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)


@dataclass(frozen=True, slots=True)
class Carried:
    """A request of HTTP, read whole.

    :param conversation: see :func:`~dllm_plugins.serving.ray.conversation.conversation_of`.
    """

    scope: Scope
    body: bytes
    conversation: str


def carried(scope: Scope, body: bytes, conversation: str) -> Carried:
    """A request that can be sent to another process."""
    return Carried({name: scope[name] for name in _CARRIED if name in scope}, body, conversation)


async def answered(app: ASGIApp, request: Carried) -> AsyncGenerator[list[Message], None]:
    """What an application sends, as many messages at a time as there are; closing tells it that the client left."""
    sent = asyncio.Queue[Message | None]()
    gone = asyncio.Event()
    unread: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Message:
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.ensure_future(app(dict(request.scope), receive, sent.put))
    task.add_done_callback(lambda _: sent.put_nowait(None))
    try:
        while (message := await sent.get()) is not None:
            yield [message, *_waiting(sent)]
        await task
    finally:
        gone.set()
        await asyncio.wait({task})


def _waiting(sent: "asyncio.Queue[Message | None]") -> list[Message]:
    """What need not be waited for."""
    found = list[Message]()
    while not sent.empty():
        message = sent.get_nowait()
        if message is None:
            sent.put_nowait(None)
            break
        found.append(message)
    return found
