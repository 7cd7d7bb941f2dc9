"""A replica's answer on its way to the client, and what the client is told where it breaks off."""

import math
import re
from collections.abc import AsyncIterable
from typing import Any

from ray.exceptions import RayError
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.exceptions import RayServeException
from starlette.datastructures import Headers
from starlette.types import Message
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.sending import DONE
from dllm_plugins.serving.sending import Json
from dllm_plugins.serving.sending import sse


class Relay:
    """Sends on what a replica sends."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: Headers | None = None
        self._last = b""
        self._whole = False

    async def all(self, response: AsyncIterable[list[Message]]) -> None:
        """Everything, to the end; an error in its place, or at the end of a stream.

        :raises Exception: where an answer that is no stream breaks off.
        """
        try:
            async for messages in response:
                for message in messages:
                    await self._one(message)
        except (RayError, RayServeException) as error:
            # Applications also raise what they have told.
            if not self._whole:
                await self._broken(error)

    async def _one(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._headers = Headers(raw=message["headers"])
        else:
            self._last = message.get("body") or self._last
            self._whole = not message.get("more_body", False)
        await self._send(message)

    async def _broken(self, error: Exception) -> None:
        failure = told_of(error)
        if self._headers is None:
            await Json(failure.body(), failure.status, failure.headers)(self._scope, self._receive, self._send)
        elif self._headers.get("content-type", "").startswith("text/event-stream"):
            body = last_words(self._scope["path"], self._last, failure)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
        else:
            # The connection is ended, so that nobody takes it for a whole answer.
            raise error


def told_of(error: Exception) -> ApiError:
    """An error of Ray's as one of the server's."""
    if isinstance(error, BackPressureError):
        seconds = str(math.ceil(error.retry_after_s or 1))
        text = f"{error.args[0]} requests wait for a replica already; ask again in {seconds} seconds"
        return ApiError(429, text, code="server_busy", headers={"Retry-After": seconds})
    if isinstance(error, RayTaskError):
        return ApiError(500, "the server has failed; its log says how", code="internal_error")
    if isinstance(error, DeploymentUnavailableError):
        return ApiError(503, "no replica could be started; `serve status` says why", code="no_replica")
    text = "the replica that was to answer is gone; ask again"
    return ApiError(503, text, code="replica_gone", headers={"Retry-After": "1"})


def last_words(path: str, last: bytes, error: ApiError) -> bytes:
    """What ends a stream that breaks off, in the form of its interface.

    :param path: that was asked.
    :param last: what was sent last.
    """
    if not path.endswith("/responses"):
        return (sse(error.body()) + DONE).encode()
    numbers = re.findall(rb'"sequence_number":(\d+)', last)
    told: dict[str, Any] = {
        "type": "error",
        "code": error.code,
        "message": str(error),
        "param": None,
        "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
    }
    return sse(told, "error").encode()
