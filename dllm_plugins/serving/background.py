"""A server in a thread of this process: for programs that want one beside what else they do."""

import threading
from types import TracebackType
from typing import Any
from typing import Self

import uvicorn

from dllm_plugins.serving.app import create_app
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.run import listening_at
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings


class Background:
    """A running server; leaving its block stops it.

    :param port: 0 for any that is free.
    :param local: where hosts of this user find it, besides; it is closed with the server.
    :raises OptionError: if it cannot listen there.
    """

    def __init__(self, settings: ServerSettings, port: int = 0, local: LocalSocket | None = None) -> None:
        self._socket = listening_at(settings.host, port)
        self.app = create_app(settings, local)
        self._server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", access_log=False))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="server", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What clients call `base_url`. Whoever asks before the server is ready waits for it."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def stop(self) -> None:
        """End it once it has answered what it has taken; nothing happens the second time."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(*models: str, port: int = 0, **settings: Any) -> Background:
    """Serve these models, by the names that `load_model` takes.

    :param settings: see :class:`~dllm_plugins.serving.settings.ServerSettings`.
    :raises OptionError: for a setting out of range, and where it cannot listen.
    """
    return Background(ServerSettings(models={name: Loading(name) for name in models or ("dllm",)}, **settings), port)
