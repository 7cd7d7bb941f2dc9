"""Where a server of the same user listens, and whether that can be trusted."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct

from dllm_plugins.errors import ServerError
from dllm_plugins.files.cache import cache_folder

VARIABLE = "DLLM_SERVER"
#: Readable by their user alone.
FOLDER_MODE, SOCKET_MODE = 0o700, 0o600
#: Process, user and group of a peer.
_CREDENTIALS = Struct("3i")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def own_socket() -> Path:
    """Where this user's server listens on this machine; a home folder may be that of several machines."""
    return cache_folder() / "server" / f"{socket.gethostname()}.sock"


def wanted() -> tuple[Path | None, bool]:
    """What :data:`VARIABLE` says: the socket of a server, and whether it must answer; None for no server."""
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen in ("", "off"):
        return None, False
    if chosen == "auto":
        return own_socket(), False
    return Path(chosen).expanduser().absolute(), True


def check(place: Path) -> None:
    """Refuse a socket that others could have put there.

    :raises ServerError: for a folder or a socket that is another user's, a link, or a folder that others write to.
    :raises OSError: if there is none.
    """
    user = os.geteuid()
    folder, found = place.parent.lstat(), place.lstat()
    kinds = ((place.parent, folder, stat.S_ISDIR, "folder"), (place, found, stat.S_ISSOCK, "socket"))
    for path, facts, is_kind, kind in kinds:
        if not is_kind(facts.st_mode):
            raise ServerError(f"{path} is no {kind}{' but a link' if stat.S_ISLNK(facts.st_mode) else ''}; remove it")
    sticky = bool(folder.st_mode & stat.S_ISVTX)
    if folder.st_uid not in (user, 0) or (folder.st_mode & _OTHERS_WRITE and not sticky):
        raise ServerError(f"{place.parent} is not only user {user}'s to write to; run `chmod 700` on it, or remove it")
    if found.st_uid != user:
        raise ServerError(f"{place} belongs to user {found.st_uid}, not to {user}; have it removed")


@contextmanager
def within(place: Path) -> Iterator[str]:
    """A socket's address for this block: paths of sockets have room for a hundred bytes, descriptors of folders none.

    :raises OSError: if there is no such folder.
    """
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = Path(f"/proc/self/fd/{folder}")
        yield str(short / place.name if short.exists() else place)
    finally:
        os.close(folder)


def connected(place: Path, seconds: float) -> socket.socket:
    """A connection to whoever listens there, who is this user.

    :param seconds: until it is given up, as everything is that is asked of the connection.
    :raises ServerError: for what :func:`check` refuses, and for a peer of another user.
    :raises OSError: if nobody listens.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this system has no such sockets")
    check(place)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(seconds)
        with within(place) as address:
            found.connect(address)
        peer = _user_of(found)
        if peer not in (None, os.geteuid()):
            raise ServerError(f"user {peer} listens at {place}, not {os.geteuid()}; have it removed")
        return found
    except BaseException:
        found.close()
        raise


def _user_of(connection: socket.socket) -> int | None:
    """Who is at the other end; None where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return int(user)
