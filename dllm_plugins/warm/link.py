"""One model of a server, as a client reaches it: a connection for each call."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING
from typing import Any
from typing import Generic
from typing import NoReturn
from typing import TypeVar

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import ServerError
from dllm_plugins.messages import shown
from dllm_plugins.warm.place import connected
from dllm_plugins.warm.protocol import PATIENCE
from dllm_plugins.warm.protocol import identity
from dllm_plugins.warm.wire import line
from dllm_plugins.warm.wire import unpacked_error

if TYPE_CHECKING:
    from dllm_plugins.sharing import SharedModel

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
#: Bytes of a line that a server may send: no bound for its own user's.
_LONGEST = 1 << 40


class NotServedError(Exception):
    """Nothing has been told as yet, and the server will not; whoever asked may ask a model of their own."""


@dataclass(eq=False, slots=True)
class Link:
    """A model that a server has, and how it is loaded here where the server does not answer.

    :param place: the server's socket.
    :param name: of the model, and `options` of loading it: what :func:`~dllm_plugins.models.load_model` takes.
    :param load: loads it here; None where only the server is to answer.
    """

    place: Path
    name: str
    options: Mapping[str, Any]
    load: "Callable[[], SharedModel] | None"
    _here: "SharedModel | None" = None

    @property
    def here(self) -> "SharedModel | None":
        """The model of this process, once the server has not answered."""
        return self._here

    def fall_back(self, error: NotServedError) -> "SharedModel":
        """Load the model here, from now on for all calls.

        :raises ServerError: where only the server is to answer, with what it said.
        """
        if self.load is None:
            raise ServerError(
                f"the server at {self.place} does not answer: {error}; start it, or unset DLLM_SERVER"
            ) from error
        if self._here is None:
            _log.info("%s is loaded here: %s", self.name, error)
            self._here = self.load()
        return self._here

    def ask(self, kind: str, read: Callable[[Any], _T], **call: Any) -> _T:
        """The only result of a call.

        :param read: makes it of what the server tells.
        :raises NotServedError: if there is none.
        :raises DllmError: of ours.
        """
        with closing(self.lines(kind, lambda told: read(told["result"]), **call)) as found:
            for result in found:
                return result
        raise NotServedError(f"it says nothing when it is asked to {kind}")

    def lines(self, kind: str, read: Callable[[dict[str, Any]], _T], **call: Any) -> Generator[_T, None, None]:
        """The results of a call; closing the generator ends it.

        :param read: makes one of what the server tells.
        :raises NotServedError: before the first one, if none comes.
        :raises ServerError: behind it, if no more come.
        :raises DllmError: of ours.
        """
        reading = _Reading(self.place, read)
        with closing(self._connected(kind, call)) as connection, connection.makefile("rb") as lines:
            while not reading.done:
                try:
                    found = lines.readline()
                except OSError as error:
                    reading.broken(error)
                yield from reading.results(found)
                connection.settimeout(None)

    async def alines(self, kind: str, read: Callable[[dict[str, Any]], _T], **call: Any) -> AsyncGenerator[_T, None]:
        """See :meth:`lines`."""
        reading = _Reading(self.place, read)
        # On this machine that waits for nobody, so it is not worth a thread.
        connection = self._connected(kind, call)
        try:
            lines, writer = await asyncio.open_connection(sock=connection, limit=_LONGEST)
        except BaseException:
            connection.close()
            raise
        try:
            while not reading.done:
                try:
                    found = await asyncio.wait_for(lines.readline(), None if reading.taken else PATIENCE)
                except (OSError, TimeoutError) as error:
                    reading.broken(error)
                for result in reading.results(found):
                    yield result
        finally:
            writer.close()

    def _connected(self, kind: str, call: Mapping[str, Any]) -> socket:
        """A connection on which a call was sent.

        :raises NotServedError: if there is none.
        """
        try:
            about = {"ask": kind, "model": self.name, "options": dict(self.options), "folder": str(Path.cwd())}
            sent = line({**identity(), **about, **call})
            connection = connected(self.place, PATIENCE)
        except (OSError, TypeError, ValueError, ServerError) as error:
            raise NotServedError(str(error)) from error
        try:
            connection.sendall(sent)
        except BaseException as error:
            connection.close()
            if isinstance(error, OSError):
                raise NotServedError(str(error)) from error
            raise
        return connection


class _Reading(Generic[_T]):
    """What is made of the answers to a call, line by line.

    :param place: for errors.
    :param read: makes a result of a line.
    """

    def __init__(self, place: Path, read: Callable[[dict[str, Any]], _T]) -> None:
        self._place = place
        self._read = read
        self.taken = self.done = self._begun = False

    def results(self, found: bytes) -> list[_T]:
        """Take a line: its result, if it is one; the first says no more than that the call was taken.

        :raises NotServedError: for what the server does not do, and for its end, before the first result.
        :raises ServerError: for the same behind it.
        :raises DllmError: that the server tells of.
        """
        if not found.endswith(b"\n"):
            self.broken(OSError("it has ended"))
        try:
            results, error = self._taken(dict(json.loads(found)))
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as wrong:
            self.broken(OSError(f"what listens there is no server of this kind, it says {shown(found)}"), wrong)
        if isinstance(error, OSError):
            self.broken(error)
        if error is not None:
            raise error
        return results

    def _taken(self, told: dict[str, Any]) -> tuple[list[_T], OSError | DllmError | None]:
        """The result of a line, or what is wrong."""
        if "error" in told:
            return [], unpacked_error(told["error"])
        if "unfit" in told:
            return [], OSError(told["unfit"])
        if not self.taken:
            self.taken = told["fits"] is True
            return [], None
        self.done = "done" in told
        results = [] if self.done else [self._read(told)]
        self._begun = True
        return results, None

    def broken(self, error: OSError, cause: Exception | None = None) -> NoReturn:
        """Nothing more comes.

        :raises NotServedError: before the first result.
        :raises ServerError: behind it.
        """
        reason = f"silent for {PATIENCE:g} seconds" if isinstance(error, TimeoutError) else str(error)
        if not self._begun:
            raise NotServedError(reason) from (cause or error)
        raise ServerError(
            f"the server at {self._place} ended in mid-answer ({reason}); what was told so far holds; ask again"
        ) from (cause or error)
