"""Who may ask, and how much at once."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from fastapi import FastAPI

from dllm_plugins.__main__ import main
from dllm_plugins.errors import OptionError
from dllm_plugins.serving import guard
from dllm_plugins.serving import run
from dllm_plugins.serving.guard import keys_in
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings

from .asking import CHAT
from .asking import asked
from .asking import body
from .asking import refused
from .conftest import client_of

KEYS = frozenset({"one-key", "another-kéy"})


async def test_only_who_has_a_key_is_answered(make_app: Callable[..., FastAPI]) -> None:
    """Any of them; the page and the state of health hold nothing of anybody's."""
    app = make_app(keys=KEYS)
    for sent in (None, "Bearer wrong", "Bearer ", "Basic one-key", "one-key"):
        async with client_of(app, **({} if sent is None else {"Authorization": sent})) as client:
            for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
                answer = await client.get(path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
            assert (await client.post(CHAT, json=body())).status_code == 401
            assert (await client.get("/health")).status_code == 200
    for key in ("one-key", "another-kéy"):
        async with client_of(app) as client:
            client.headers.update({b"Authorization": f"Bearer {key}".encode()})
            await asked(client)


async def test_keys_are_compared_in_constant_time(
    make_app: Callable[..., FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, whichever fits, and as digests of one length."""
    compared = list[tuple[int, int]]()
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    async with client_of(make_app(keys=KEYS), Authorization="Bearer one-key") as client:
        await client.get("/v1/models")
    assert compared == [(32, 32)] * 2


def test_files_of_keys() -> None:
    """One a line, with notes between."""
    assert keys_in(["# of the team", "", " a ", "b", "a"]) == {"a", "b"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("127.0.0.2:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
async def test_pages_of_other_sites_do_not_reach_a_local_server(
    client: httpx.AsyncClient, host: str, status: int
) -> None:
    """By a name of theirs that leads here."""
    answer = await client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_what_pages_may_send_without_asking_is_no_request(client: httpx.AsyncClient, kind: str) -> None:
    """Only JSON is, which browsers ask about first; and nothing lets other sites in."""
    content = '{"model": "tiny", "messages": [{"role": "user", "content": "x"}]}'
    status, error = await refused(client, content=content, headers={"Content-Type": kind})
    assert status == 400
    assert "application/json" in error["message"]
    answer = await client.options(CHAT, headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_bodies_are_bounded(make_app: Callable[..., FastAPI]) -> None:
    """Whether they say how long they are or not."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    async with client_of(make_app(body=1000)) as client:
        headers = {"Content-Type": "application/json"}
        for content in (b" " * 1001, pieces()):
            status, error = await refused(client, content=content, headers=headers)
            assert (status, error["code"]) == (413, "request_too_large")
            assert "1000 bytes" in error["message"]
        await asked(client)


async def test_half_a_body_is_not_waited_for_for_ever(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep its connection."""
    monkeypatch.setattr(guard, "PATIENCE", 0.05)

    async def half() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.Event().wait()

    status, error = await refused(client, content=half(), headers={"Content-Type": "application/json"})
    assert status == 408
    assert "send it again" in error["message"]


async def test_prompts_are_bounded(make_app: Callable[..., FastAPI]) -> None:
    """By their tokens."""
    async with client_of(make_app(prompt=40)) as client:
        await asked(client)
        status, error = await refused(client, json=body("why?" * 10))
        assert (status, error["code"]) == (400, "context_length_exceeded")
        assert "40" in error["message"]
        answer = await client.post("/v1/completions", json={"model": "tiny", "prompt": [5] * 41})
        assert answer.json()["error"]["param"] == "prompt"


async def test_without_keys_only_this_machine_is_answered(make_app: Callable[..., FastAPI]) -> None:
    """Whatever name others call it by."""
    for app, status in ((make_app(), 403), (make_app(host="192.0.2.7"), 200)):
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/models")
            assert answer.status_code == status


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerSettings]:
    """Settings that the command would have served with."""
    found = list[ServerSettings]()
    monkeypatch.setattr(run, "run_server", lambda settings, port, say: found.append(settings))
    monkeypatch.delenv(guard.KEY, raising=False)
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_machines_need_a_key(
    started: list[ServerSettings], host: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody says that they need none."""

    def call(*more: str) -> Any:
        return CliRunner().invoke(main, ["serve", "--host", host, *more])

    result = call()
    assert result.exit_code == 1
    assert f"--host={host} " in result.output
    assert f"--api-key-file=FILE or set {guard.KEY}, or say --without-key" in result.output
    with pytest.raises(OptionError, match=f"^host={host} .*api_key_file=FILE"):
        guard.with_keys(ServerSettings({"a": Loading("a")}, host=host), None, without_key=False)
    assert started == []
    keys = tmp_path / "keys"
    keys.write_text("# none\n")
    assert "no key in" in call("--api-key-file", str(keys)).output
    keys.write_text("k1\nk2\n")
    assert call("--api-key-file", str(keys)).exit_code == 0
    assert call("--without-key").exit_code == 0
    monkeypatch.setenv(guard.KEY, "k3")
    assert call().exit_code == 0
    assert [settings.keys for settings in started] == [{"k1", "k2"}, frozenset(), {"k3"}]


def test_options_of_the_command(started: list[ServerSettings]) -> None:
    """Units are read, and what is no number is refused."""
    words = "-m one -m two --memory 1.5G --keep-alive 10m --grace 5 --max-body 2K --rows 3 --queue 4 --kv-memory 1M"
    assert CliRunner().invoke(main, ["serve", *words.split(), "--load", "dtype", "float32"]).exit_code == 0
    [settings] = started
    assert list(settings.models) == ["one", "two"]
    assert settings.models["two"].options == {"dtype": "float32"}
    assert (settings.memory, settings.idle, settings.grace, settings.body) == (3 << 29, 600, 5, 2048)
    assert (settings.rows, settings.waiting, settings.kv_memory) == (3, 4, 1 << 20)
    for wrong in (["--memory", "much"], ["--rows", "0"], ["--port", "99999"], ["--keep-alive", "5x"]):
        result = CliRunner().invoke(main, ["serve", *wrong])
        assert result.exit_code != 0
        assert wrong[1] in result.output or wrong[0].strip("-") in result.output
