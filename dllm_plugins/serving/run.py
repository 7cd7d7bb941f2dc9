"""A server in this process, from its first request to its last."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import ExitStack
from contextlib import closing
from types import FrameType

import uvicorn
from fastapi import FastAPI

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import ServerError
from dllm_plugins.serving.app import create_app
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.service import Service
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.warm.place import own_socket

#: Seconds after those of grace in which connections close.
_MORE = 5
#: Connections that wait to be taken.
_BACKLOG = 2048
_log = logging.getLogger("dllm_plugins.serving")


class Stopping(uvicorn.Server):
    """Told to end, it takes nothing more, and cuts what has not ended after the time of grace.

    A second Ctrl-C ends it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called by signals."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._service.cut if self.should_exit else self._stop)
        super().handle_exit(sig, frame)

    def _stop(self) -> None:
        self._task = asyncio.ensure_future(self._service.stop())


def run_server(settings: ServerSettings, port: int, say: Callable[[str], None]) -> None:
    """Serve until a signal ends the process.

    :param port: 0 for any that is free.
    :param say: is told where the server is.
    :raises OptionError: if it cannot listen there.
    """
    listening = listening_at(settings.host, port)
    with closing(listening), ExitStack() as stack:
        local, reason = None, ""
        try:
            local = stack.enter_context(LocalSocket(own_socket()))
        except (OSError, ServerError) as error:
            reason = f"DLLM_SERVER=auto does not find this server: {error}"
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        say(f"http://{shown}:{listening.getsockname()[1]} serves {', '.join(settings.models)}; Ctrl-C ends it")
        if reason:
            say(reason)
        _run(create_app(settings, local), settings, listening, say)


def _run(app: FastAPI, settings: ServerSettings, listening: socket.socket, say: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=int(settings.grace) + _MORE
    )
    _log.addHandler(_Saying(say))
    _log.setLevel(logging.INFO)
    server = Stopping(config, app.state.service)
    try:
        server.run([listening])
    except KeyboardInterrupt:
        return


def listening_at(host: str, port: int) -> socket.socket:
    """A socket that clients reach at once; what they ask waits in it until it is served.

    :raises OptionError: where it cannot be.
    """
    found: socket.socket | None = None
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(_BACKLOG)
        return found
    except OSError as error:
        if found is not None:
            found.close()
        raise OptionError(f"--host {host} --port {port}: {error.strerror or error}; name others") from error


class _Saying(logging.Handler):
    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say a line."""
        self._say(self.format(record))
