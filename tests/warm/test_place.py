"""Where a server may be, and who is not asked."""

import os
import socket
import stat
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllm_plugins.errors import ServerError
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.sharing import SharedModel
from dllm_plugins.warm import place as places
from dllm_plugins.warm.opening import open_model
from dllm_plugins.warm.place import connected
from dllm_plugins.warm.place import own_socket

OTHER = 12345


@pytest.fixture
def listener(place: Path) -> Iterator[socket.socket]:
    """Somebody who listens there and never answers."""
    with LocalSocket(place) as found:
        yield found.socket


def only_the_user(path: Path) -> bool:
    """Whether nobody else can do anything with it."""
    return stat.S_IMODE(path.lstat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO) == 0


def test_it_is_this_user_s_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder and socket, whatever the mask of new files says, and a folder that was open before."""
    before = os.umask(0)
    try:
        place.parent.mkdir(mode=0o777)
        with LocalSocket(place):
            assert only_the_user(place)
            assert only_the_user(place.parent)
            connected(place, 5).close()
    finally:
        os.umask(before)
    assert not place.exists()
    monkeypatch.setenv("DLLM_CACHE", str(place.parent))
    assert own_socket() == place.parent / "server" / f"{socket.gethostname()}.sock"


def to_another(path: Path) -> None:
    """Give a file or a folder to another user."""
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def to_a_link(path: Path) -> None:
    """Put a link in its place."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("which", "change", "words"),
    [
        ("socket", to_another, "belongs to user 12345"),
        ("folder", to_another, "not only user"),
        ("socket", to_a_link, "link"),
        ("folder", to_a_link, "link"),
        ("folder", lambda path: path.chmod(0o777), "chmod 700"),
    ],
)
def test_what_others_could_have_put_there(
    listener: socket.socket, place: Path, which: str, change: Callable[[Path], None], words: str
) -> None:
    """Is not connected to; where only that server is to answer, that is an error."""
    if change is to_another and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    change(place if which == "socket" else place.parent)
    with pytest.raises(ServerError, match=words):
        connected(place, 5)
    with pytest.raises(ServerError, match=words):
        open_model("dllm", {})


def test_another_user_who_listens(listener: socket.socket, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the files."""
    monkeypatch.setattr(places, "_user_of", lambda _: OTHER)
    with pytest.raises(ServerError, match="user 12345 listens"):
        connected(place, 5)


def test_a_living_server_keeps_its_socket(listener: socket.socket, place: Path) -> None:
    """Whether or not it holds the lock; and its own end is not kept from it."""
    with pytest.raises(ServerError, match="another server"), LocalSocket(place):
        pass
    place.with_suffix(".lock").unlink()
    with pytest.raises(ServerError, match="another server"), LocalSocket(place):
        pass
    connected(place, 5).close()


def test_what_a_dead_server_has_left(place: Path) -> None:
    """Is replaced; what is no socket is not."""
    place.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead, places.within(place) as address:
        dead.bind(address)
    with LocalSocket(place):
        connected(place, 5).close()
    place.write_text("mine")
    with pytest.raises(ServerError, match="no socket"), LocalSocket(place):
        pass
    assert place.read_text() == "mine"


def test_a_long_path(tmp_path: Path) -> None:
    """Sockets have short ones."""
    place = tmp_path / ("long" * 40) / "here.sock"
    with LocalSocket(place):
        connected(place, 5).close()


@pytest.mark.parametrize("chosen", ["", "off", None])
def test_nobody_is_asked(chosen: str | None, held: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless that is wanted."""
    if chosen is None:
        monkeypatch.delenv(places.VARIABLE, raising=False)
    else:
        monkeypatch.setenv(places.VARIABLE, chosen)
    assert places.wanted() == (None, False)
