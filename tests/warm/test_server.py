"""What does not fit, clients that leave, servers that end, and who answers then."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import dllm_plugins
from dllm_plugins import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import ServerError
from dllm_plugins.events import Commit
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel
from dllm_plugins.warm import protocol
from dllm_plugins.warm import wire
from dllm_plugins.warm.model import WarmShared
from dllm_plugins.warm.opening import answers
from dllm_plugins.warm.opening import open_model
from dllm_plugins.warm.place import VARIABLE
from dllm_plugins.warm.place import own_socket

from .conftest import QUESTION
from .conftest import Serve

LONG = SamplingConfig(max_new_tokens=2000, mode="ar", min_new_tokens=2000)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes take a while."""
    advance = Engine.advance

    def slowly(self: Engine, tell: Any) -> None:
        time.sleep(0.01)
        advance(self, tell)

    monkeypatch.setattr(Engine, "advance", slowly)


def nobody_left(held: SharedModel) -> bool:
    """Whether all rows are freed, soon."""
    for _ in range(200):
        if not held._engine.active:
            return True
        time.sleep(0.01)
    return False


def another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this package, at the client."""
    own = protocol.identity()
    monkeypatch.setattr("dllm_plugins.warm.link.identity", lambda: own | {"version": "0.0.1"})


def another_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this package, at the client."""
    own = protocol.identity()
    monkeypatch.setattr("dllm_plugins.warm.link.identity", lambda: own | {"protocol": 0})


def other_plug_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the client."""
    own = protocol.identity()
    monkeypatch.setattr("dllm_plugins.warm.link.identity", lambda: own | {"environment": {"DLLM_LOAD_PLUGINS": ""}})


def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is otherwise."""


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (another_version, {}, "its version is '0.1.0', not '0.0.1'"),
        (another_protocol, {}, "its protocol"),
        (other_plug_ins, {}, "its environment"),
        (nothing, {"dtype": "bfloat16"}, "does not serve 'dllm'"),
        (nothing, {"device_map": {"": object()}}, "not JSON serializable"),
    ],
)
def test_what_does_not_fit(
    serve: Serve,
    loading: Loading,
    held: SharedModel,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
    options: dict[str, Any],
    words: str,
) -> None:
    """Says so where only that server is to answer; else the model is loaded here."""
    serve()
    change(monkeypatch)
    given = {**loading.options, **options}
    with pytest.raises(ServerError, match=words):
        open_model(loading.place, given)
    assert re.search(words, answers(loading.place, given))
    place = Path(os.environ[VARIABLE])
    monkeypatch.setattr("dllm_plugins.warm.opening.wanted", lambda: (place, False))
    assert open_model(loading.place, given, lambda: held) is held


def test_paths_are_those_of_whoever_asks(
    serve: Serve, loading: Loading, nothing_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another folder to begin at, and defaults that are said."""
    serve()
    base = Path(loading.options["base"])
    assert answers("dllm", dict(loading.options)) == f"the server at {os.environ[VARIABLE]}"
    monkeypatch.chdir(base.parent)
    given = {**loading.options, "base": Path(base.name), "device": "auto", "compile": False, "batch_invariant": None}
    assert isinstance(open_model("dllm", given), WarmShared)


def test_files_that_have_changed(serve: Serve, loading: Loading, tmp_path: Path, held: SharedModel) -> None:
    """Since they were loaded: the server's answers are of the old ones."""
    import shutil

    base = tmp_path / "base"
    shutil.copytree(loading.options["base"], base)
    own = replace(loading, options={**loading.options, "base": str(base)})
    serve(models={"mine": own})
    assert isinstance(open_model("dllm", dict(own.options)), WarmShared)
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    with pytest.raises(ServerError, match="have changed"):
        open_model("dllm", dict(own.options))


def test_a_model_that_cannot_be_loaded(serve: Serve, loading: Loading, tmp_path: Path) -> None:
    """The error of loading, as it would be here."""
    own = replace(loading, options={**loading.options, "base": str(tmp_path)})
    serve(models={"mine": own})
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_model("dllm", dict(own.options))


def test_nobody_answers(place: Path, loading: Loading, held: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no server, or one that has stopped answering."""
    with pytest.raises(ServerError, match="No such file"):
        open_model(loading.place, dict(loading.options))
    monkeypatch.setattr("dllm_plugins.warm.link.PATIENCE", 0.2)
    with LocalSocket(place), pytest.raises(ServerError, match="silent"):
        open_model(loading.place, dict(loading.options))
    monkeypatch.setenv("DLLM_CACHE", str(place.parent.parent))
    monkeypatch.setenv(VARIABLE, "auto")
    with LocalSocket(own_socket()):
        assert open_model(loading.place, dict(loading.options)) is held


async def test_leaving_frees_the_row(warm: WarmShared, held: SharedModel, slow: None) -> None:
    """A stream that is closed, one that is dropped, a task that is cancelled."""
    stream = warm.stream(warm.model.chat_request(QUESTION, LONG))
    next(stream)
    assert held._engine.active
    stream.close()
    assert nobody_left(held)
    stream = warm.stream(warm.model.chat_request(QUESTION, LONG))
    next(stream)
    del stream
    assert nobody_left(held)

    async def read() -> None:
        async for _ in warm.astream(warm.model.chat_request(QUESTION, LONG)):
            begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(nobody_left, held)


async def test_a_server_that_is_stopped(
    serve: Serve, loading: Loading, held: SharedModel, slow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs is finished; what has not come to an end within the time of grace is cut; and nobody else is taken."""
    server = serve(grace=30.0)
    found: Any = open_model("dllm", dict(loading.options), lambda: held)
    source = found.stream(found.model.chat_request(QUESTION, LONG.with_options(max_new_tokens=60, min_new_tokens=60)))
    next(source)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    *_, last = source
    assert last.usage.useful_tokens == 60
    await asyncio.to_thread(stopping.join)
    source = found.stream(found.model.chat_request(QUESTION, LONG))
    with pytest.raises(ServerError, match="does not answer"):
        next(source)


def test_a_server_that_cuts(serve: Serve, loading: Loading, held: SharedModel, slow: None) -> None:
    """Whoever was answered is told so, and rows are freed."""
    server = serve()
    found: Any = open_model("dllm", dict(loading.options), lambda: held)
    source = found.stream(found.model.chat_request(QUESTION, LONG))
    next(source)
    service = server.app.state.service
    service.stopping = True
    server._server.servers[0].get_loop().call_soon_threadsafe(service.cut)
    with pytest.raises(ServerError, match=r"mid-answer .the server is being stopped"):
        list(source)
    assert nobody_left(held)
    with pytest.raises(ServerError, match="is being stopped"):
        list(found.stream(found.model.chat_request(QUESTION, LONG)))


def test_what_cannot_be_sent(warm: WarmShared, held: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable, and tokens: an error where only the server is to answer, else the model is loaded here."""
    held.prefixes.clear()
    asked = warm.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=6))
    seen = list[int]()

    def processor(ids: Any, logits: Any) -> Any:
        seen.append(ids.shape[-1])
        return logits

    requests = (replace(asked, processors=[processor]), held.model.chat_request(QUESTION, asked.config))
    for request in requests:
        with pytest.raises(ServerError, match="no other process"):
            list(warm.stream(request))
        assert wire.packed_request(request) is None
    monkeypatch.setattr(warm._link, "load", lambda: held)
    for request in requests:
        *_, found = warm.stream(request)
        assert isinstance(found, dllm_plugins.Finish)
        assert found.text == held.generate([requests[1]])[0].text
    assert seen


def scripted(place: Path, *lines: bytes) -> threading.Thread:
    """A server that takes one call, says this, and ends."""
    ready = threading.Event()

    def run() -> None:
        with LocalSocket(place) as listener:
            ready.set()
            connection, _ = listener.socket.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"".join(lines))

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    return thread


#: What no server of ours says.
STRANGE: tuple[dict[str, Any], ...] = (
    {},
    {"done": True},
    {"result": {}},
    {"result": {"name": "a"}},
    {"at": 0},
    {"at": 0, "event": {"$": "None"}},
    {"at": 0, "event": {"$": "Commit", "row": 1}},
    {"error": {}},
    {"error": {"class": "annotations", "detail": "a"}},
    {"error": {"class": "Message", "detail": "a"}},
)


@pytest.mark.parametrize("said", STRANGE)
async def test_a_stranger_at_the_socket(
    warm: WarmShared, loading: Loading, held: SharedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    """What it says is no answer: the model is loaded here, or it is named where only that server is to answer."""
    place = tmp_path / "other" / "here.sock"
    monkeypatch.setenv(VARIABLE, str(place))
    warm._link.place, asked = place, warm.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=6))
    for lines in ([wire.line({"fits": True}), wire.line(said)], [wire.line(said)]):
        for ask in (
            lambda: open_model(loading.place, dict(loading.options)),
            lambda: warm.model.encode_text("a"),
            lambda: warm.model.tokenizer.decode([5]),
        ):
            thread = scripted(place, *lines)
            with pytest.raises(ServerError, match=rf"{place} does not answer: (what listens|it says nothing|it has)"):
                ask()
            thread.join()
    if "done" in said:
        return
    warm._link.load = lambda: held
    thread = scripted(place, wire.line({"fits": True}), wire.line(said))
    expected = held.generate([held.model.chat_request(QUESTION, asked.config)])[0].text
    assert [event async for event in warm.astream(asked)][-1].text == expected
    thread.join()


async def test_a_server_that_ends(warm: WarmShared, held: SharedModel, tmp_path: Path) -> None:
    """In mid-answer that is an error; before it, the model is loaded here."""
    asked = warm.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=6))
    expected = held.generate([held.model.chat_request(QUESTION, asked.config)])[0].text
    first = wire.line({"at": 0, "event": wire.packed(Commit(1, 1, (5,), "a"))})
    warm._link.place = tmp_path / "other" / "here.sock"
    warm._link.load = lambda: held
    for lines in ((first, b'{"at"'), (first, wire.line({"unfit": "it is being stopped"}))):
        thread = scripted(warm._link.place, wire.line({"fits": True}), *lines)
        source = warm.stream(asked)
        assert next(source) == Commit(1, 1, (5,), "a")
        with pytest.raises(ServerError, match="mid-answer"):
            next(source)
        thread.join()
        thread = scripted(warm._link.place, wire.line({"fits": True}), *lines)
        with pytest.raises(ServerError, match="mid-answer"):
            [event async for event in warm.astream(asked)]
        thread.join()
    for ask in (lambda: list(warm.stream(asked)), lambda: asyncio.run(_all(warm, asked))):
        for said in (wire.line({"fits": True}), b"HTTP/1.1 400 Bad Request\r\n\r\n", b"1\n", b""):
            warm._link._here = None
            thread = scripted(warm._link.place, said)
            assert (await asyncio.to_thread(ask))[-1].text == expected
            thread.join()


async def _all(warm: WarmShared, asked: Any) -> list[Any]:
    return [event async for event in warm.astream(asked)]


def test_calls_that_are_none(serve: Serve, place: Path, warm: WarmShared) -> None:
    """Are answered by a line, and the server goes on."""
    good = protocol.identity() | {"model": "dllm", "options": {}, "folder": "/"}
    for sent in (b"\n", b"{}\n", b"[1]\n", b"nonsense\n", wire.line(good | {"ask": "none-such"}), b"x" * (5 << 20)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(place))
            try:
                connection.sendall(sent)
                assert b'"unfit"' in connection.recv(1 << 16)
            except (BrokenPipeError, ConnectionResetError):
                assert len(sent) > 4 << 20
    assert [*warm.stream(warm.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=2)))]


@pytest.fixture
def process(loading: Loading, place: Path) -> Iterator[subprocess.Popen[str]]:
    """A server as a process of its own, which says where it is found."""
    command = [sys.executable, "-m", "dllm_plugins", "serve", "--port", "0"]
    for name, value in loading.options.items():
        command += ["--load", name, value]
    environment = {**os.environ, "DLLM_CACHE": str(place.parent.parent), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as found:
        try:
            assert found.stderr is not None
            assert "serves dllm" in found.stderr.readline()
            yield found
        finally:
            found.kill()


@pytest.mark.slow
def test_a_server_of_its_own(
    process: subprocess.Popen[str], place: Path, loading: Loading, held: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed in mid-answer; the next answer is this process's, and the next server takes its place."""
    monkeypatch.setenv("DLLM_CACHE", str(place.parent.parent))
    monkeypatch.setenv(VARIABLE, "auto")
    found = open_model("dllm", dict(loading.options), lambda: held)
    assert isinstance(found, WarmShared)
    source = found.stream(found.model.chat_request(QUESTION, LONG))
    next(source)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(ServerError, match="mid-answer"):
        list(source)
    assert own_socket().exists()
    asked = found.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=4))
    *_, last = found.stream(asked)
    assert last == replace(last, text=held.generate([held.model.chat_request(QUESTION, asked.config)])[0].text)
    with LocalSocket(own_socket()):
        pass
