"""What stands before the application: who may ask, under which name, and how much at once."""

import asyncio
import hmac
import os
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp
from starlette.types import Message
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.sending import Json
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.serving.settings import is_loopback

#: Where a key may stand in the environment.
KEY = "DLLM_API_KEY"
#: Seconds that a body under way may pause.
PATIENCE = 60.0
#: What holds nothing of anybody's.
_OPEN = ("/", "/health")


class Guard:
    """Middleware that refuses before anything is read.

    A page of another site can send requests to a server on this machine, by a name of its own that leads here.
    So a server without keys answers only where the request names this machine, or the host it was told to be.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._keys = [_digest(key.encode()) for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["path"], Headers(scope=scope), scope.get("client"))
            read = await self._read(receive)
        except ApiError as error:
            answer = Json(error.body(), error.status, error.headers | {"Connection": "close"})
            await answer(scope, receive, send)
            return
        await self._app(scope, read, send)

    def _check(self, path: str, headers: Headers, client: Sequence[Any] | None) -> None:
        if not self._keys:
            self._check_host(headers.get("host", ""))
            self._check_client(client)
        elif path not in _OPEN and not self._knows(headers.get("authorization", "")):
            raise ApiError(
                401,
                "this server wants a key; send it as `Authorization: Bearer KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._settings.body:
            raise self._too_large()

    def _check_host(self, host: str) -> None:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if self._settings.local and not is_loopback(name) and name != self._settings.host:
            raise ApiError(
                403, f"this server does not go by the name {name!r}; call it {self._settings.host}", code="unknown_host"
            )

    def _check_client(self, client: Sequence[Any] | None) -> None:
        """What listens for it, such as a proxy on a cluster, may listen further than it was told to answer."""
        if self._settings.local and client and not is_loopback(client[0]):
            raise ApiError(403, "this server answers this machine alone; it has no keys", code="unknown_client")

    def _knows(self, sent: str) -> bool:
        """Whether a key is one of those; how long that takes says nothing of them."""
        scheme, _, key = sent.partition(" ")
        # Headers come as Latin-1, whatever they are.
        given = _digest(key.strip().encode("latin-1"))
        found = [hmac.compare_digest(given, known) for known in self._keys]
        return scheme.lower() == "bearer" and any(found)

    async def _read(self, receive: Receive) -> Receive:
        """Read all of the body, which then comes in one piece."""
        body, more = bytearray(), True
        while more:
            try:
                async with asyncio.timeout(PATIENCE):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"nothing of the body came for {PATIENCE:.0f} seconds; send it again") from None
            if message["type"] != "http.request":
                # The client has left; whoever listens is told so.
                return _told_first(message, receive)
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._settings.body:
                raise self._too_large()
        return _told_first({"type": "http.request", "body": bytes(body), "more_body": False}, receive)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"a request may have {self._settings.body} bytes; send less", code="request_too_large")


def _told_first(message: Message, receive: Receive) -> Receive:
    """What tells this message, and then what comes."""
    first = [message]

    async def told() -> Message:
        return first.pop() if first else await receive()

    return told


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def with_keys(settings: ServerSettings, file: Path | None, without_key: bool) -> ServerSettings:
    """The settings with the keys of a file, or of :data:`KEY` in the environment.

    :param without_key: whether others are answered although there is no key.
    :raises OptionError: for a host that others reach without a key, or a file without keys.
    """
    keys = keys_of(file)
    if not settings.local and not keys and not without_key:
        raise OptionError(
            message(
                "{host}={} can be reached from other machines, and there is no key: give {api_key_file}=FILE or "
                "set {}, or say {without_key}",
                settings.host,
                KEY,
            )
        )
    return replace(settings, keys=keys)


def keys_of(file: Path | None) -> frozenset[str]:
    """Keys of a file, or of :data:`KEY` in the environment.

    :raises OptionError: for a file without any.
    """
    if file is None:
        return keys_in([os.environ.get(KEY, "")])
    keys = keys_in(file.read_text(encoding="utf-8").splitlines())
    if not keys:
        raise OptionError(f"there is no key in {file}; write one a line")
    return keys


def keys_in(lines: Iterable[str]) -> frozenset[str]:
    """Keys of a file: one a line; empty lines and those that begin with # are none."""
    found = (line.strip() for line in lines)
    return frozenset(line for line in found if line and not line.startswith("#"))
