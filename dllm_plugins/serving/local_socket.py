"""The socket at which a server is found by hosts of its user on its machine."""

import os
import socket
from contextlib import ExitStack
from contextlib import suppress
from pathlib import Path
from typing import Self

from filelock import FileLock
from filelock import Timeout

from dllm_plugins.errors import ServerError
from dllm_plugins.warm.place import FOLDER_MODE
from dllm_plugins.warm.place import SOCKET_MODE
from dllm_plugins.warm.place import check
from dllm_plugins.warm.place import connected
from dllm_plugins.warm.place import within

_BACKLOG = 128


class LocalSocket:
    """Listens there until it is closed; what a server that has died left there is replaced.

    :raises ServerError: if another server listens there, or others could have put something there.
    :raises OSError: if nobody can listen there.
    """

    def __init__(self, place: Path) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("this system has no such sockets")
        self._stack = ExitStack()
        with ExitStack() as stack:
            place.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            _own(place.parent)
            stack.enter_context(_lock(place))
            #: Who connects is taken there.
            self.socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            _clear(place)
            with within(place) as address:
                self.socket.bind(address)
            stack.callback(place.unlink, missing_ok=True)
            place.chmod(SOCKET_MODE)
            self.socket.listen(_BACKLOG)
            check(place)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Remove it; nothing happens the second time."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _lock(place: Path) -> FileLock:
    """Held by whoever is alive; the system lets go of it for the dead.

    :raises ServerError: if another server holds it.
    """
    lock = FileLock(place.with_suffix(".lock"), timeout=0, mode=SOCKET_MODE)
    try:
        lock.acquire()
    except Timeout as error:
        raise ServerError(f"another server listens at {place}") from error
    return lock


def _own(folder: Path) -> None:
    """Close a folder of this user's to others.

    :raises ServerError: for a link, and for one of another user's.
    """
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.geteuid():
        kind = "a link" if folder.is_symlink() else f"user {facts.st_uid}'s"
        raise ServerError(f"{folder} is {kind}; remove it")
    folder.chmod(FOLDER_MODE)


def _clear(place: Path) -> None:
    """Remove the socket of a server that has died.

    :raises ServerError: for one that lives, and for what is no socket.
    """
    if not place.is_symlink() and not place.exists():
        return
    with suppress(ConnectionRefusedError, FileNotFoundError):
        connected(place, 1.0).close()
        raise ServerError(f"another server listens at {place}")
    place.unlink()
