"""What needs no cluster: arguments, conversations, what is carried between processes, figures of several replicas."""

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI

from dllm_plugins.errors import MissingExtraError
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.extras import has
from dllm_plugins.serving.metrics import Metrics
from dllm_plugins.serving.ray import app
from dllm_plugins.serving.ray.arguments import bounded
from dllm_plugins.serving.ray.arguments import placing_of
from dllm_plugins.serving.ray.arguments import settings_of
from dllm_plugins.serving.ray.carrying import answered
from dllm_plugins.serving.ray.carrying import carried
from dllm_plugins.serving.ray.conversation import conversation_of
from dllm_plugins.serving.ray.conversation import ranked
from dllm_plugins.serving.ray.figures import together
from dllm_plugins.serving.settings import Loading

from ..asking import CHAT
from ..asking import body
from ..asking import events
from ..asking import text_of

DOCS = Path(__file__).parents[3] / "docs"
USER: dict[str, Any] = {"role": "user", "content": "why?"}
SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": CHAT,
    "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    "state": object(),
}


def test_arguments_come_as_texts_too() -> None:
    """As a command line has them; models with options of their own."""
    settings = settings_of({"models": "a,b", "rows": "3", "grace": "2.5", "replicas": "2", "api_key_file": "keys"})
    assert dict(settings.models) == {"a": Loading("a"), "b": Loading("b")}
    assert (settings.rows, settings.grace, settings.waiting) == (3, 2.5, 256)
    placing = placing_of({"replicas": "2", "gpus": "0.5", "without_key": "true"})
    assert (placing.replicas, placing.gpus, placing.access.without_key) == (2, 0.5, True)
    named = settings_of({"models": {"a": None, "b": {"place": "c", "dtype": "float32"}}})
    assert dict(named.models) == {"a": Loading("a"), "b": Loading("c", {"dtype": "float32"})}
    assert bounded(settings, {"rows": 1, "kv_memory": 5}) == replace(settings, rows=1, kv_memory=5)
    assert bounded(settings, {}) == settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"row": 3}, "'row'.*rows"),
        ({"keys": "k"}, "'keys'.*api_key_file"),
        ({"rows": "many"}, "rows='many'.*integer"),
        ({"rows": 0}, "rows=0"),
        ({"replicas": 0}, "replicas=0"),
        ({"models": []}, "no model"),
        ({"models": 3}, "models=3: input should be"),
        ({"models": {"a": "b"}}, "models=.*dictionary"),
    ],
)
def test_wrong_arguments(given: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        placing_of(given), settings_of(given)


def test_bounds_are_no_models() -> None:
    """Nor anything else that a running replica does not take on."""
    with pytest.raises(OptionError, match=r"'models'.*rows"):
        bounded(settings_of({}), {"models": "other"})


def test_the_config_file_of_the_docs() -> None:
    """It is the one on the page, and what it says is understood."""
    text = (DOCS / "replicas.yaml").read_text()
    assert f"```yaml\n{text}```" in (DOCS / "replicas.md").read_text()
    # What is commented out, too.
    more = re.sub(r"# (?=small:|large:|num_replicas: auto|autoscaling_config:)", "", text)
    [application] = yaml.safe_load(more.replace("num_replicas: 2\n", "\n"))["applications"]
    assert application["import_path"] == f"{app.__module__}:{app.__name__}"
    settings = settings_of(application["args"])
    assert list(settings.models) == ["dllm", "small", "large"]
    server, ingress = application["deployments"]
    assert (server["name"], ingress["name"]) == ("Server", "Ingress")
    assert bounded(settings, server["user_config"]).slice == 128


@pytest.mark.skipif(has("ray"), reason="Ray is installed")
def test_without_ray_it_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"a server on a cluster needs ray.*pip install 'dllm-plugins\[ray\]'"):
        app({})


def test_turns_belong_to_one_conversation() -> None:
    """In all interfaces, however they write what was said; other models and other beginnings are others."""
    system, answer = {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "so"}
    first = _conversation(messages=[system, USER])
    parts = [{"type": "text", "text": "wh"}, {"type": "text", "text": "y?"}]
    assert first == _conversation(messages=[system, USER, answer, {"role": "user", "content": "and?"}])
    assert first == _conversation(messages=[system, {"role": "user", "content": parts}])
    assert first == _conversation(instructions="Be brief.", input="why?")
    assert first == _conversation(instructions="Be brief.", input=[USER, answer, USER])
    others: list[dict[str, Any]] = [
        {"messages": [USER]},
        {"messages": [system, answer]},
        {"messages": [system, USER], "model": "other"},
    ]
    assert len({first, *(_conversation(**one) for one in others)}) == 4
    assert _conversation(prompt="a" * 64) == _conversation(prompt="a" * 64 + "b")
    assert _conversation(prompt=[5] * 64) == _conversation(prompt=[[5] * 65, [6]])
    assert _conversation(prompt=["a"]) == _conversation(prompt="a") != _conversation(prompt="b")


def _conversation(**asked: Any) -> str:
    return conversation_of(json.dumps({"model": "tiny", **asked}).encode())


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"messages": 3}', b'{"prompt": {}}', b'{"messages": [1]}']
)
def test_what_is_no_request_has_no_conversation(sent: bytes) -> None:
    """A replica says what is wrong with it."""
    assert conversation_of(sent) == ""


def test_replicas_share_conversations() -> None:
    """About evenly; one more takes its share and moves no other, and one that is far ahead is passed over."""
    names = dict.fromkeys("abcd", 0)
    first = {str(number): ranked(str(number), names, 8)[0] for number in range(1000)}
    assert all(200 < list(first.values()).count(name) < 300 for name in names)
    more = {key: ranked(key, {**names, "e": 0}, 8)[0] for key in first}
    assert all(more[key] in (first[key], "e") for key in first)
    best, second, *_ = order = ranked("one", names, 8)
    assert ranked("one", names | {best: 8}, 8) == order
    assert ranked("one", names | {best: 9}, 8) == [*order[1:], best]
    assert ranked("one", names | {best: 9, second: 9}, 8) == [*order[2:], best, second]
    assert ranked("one", {}, 8) == []


async def test_a_request_is_carried(make_app: Callable[..., FastAPI]) -> None:
    """Whole and as a stream; what cannot be sent to another process stays."""
    told = make_app()
    request = carried(SCOPE, json.dumps(body(stream=True)).encode(), "")
    assert "state" not in request.scope
    sent = [message async for messages in answered(told, request) for message in messages]
    assert sent[0]["status"] == 200
    found = events(b"".join(message["body"] for message in sent[1:]).decode())
    whole = [message async for messages in answered(told, carried(SCOPE, _json(), "")) for message in messages]
    assert text_of(found) == json.loads(whole[1]["body"])["choices"][0]["message"]["content"]


def _json() -> bytes:
    return json.dumps(body()).encode()


async def test_closing_is_leaving(make_app: Callable[..., FastAPI]) -> None:
    """Whether the reader closes or is cancelled, the row is free when that is done."""
    told = make_app()
    request = carried(SCOPE, json.dumps(body(stream=True, max_tokens=400)).encode(), "")
    async with aclosing(answered(told, request)) as stream:
        await anext(stream)
    assert told.state.service.models.busy == 0

    async def read() -> None:
        async with aclosing(answered(told, request)) as stream:
            async for _ in stream:
                reading.set()

    reading = asyncio.Event()
    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.state.service.models.busy == 0
    assert 'dllm_left_total{model="tiny"} 2.0' in told.state.service.metrics.text().decode()


async def test_what_an_application_raises_is_raised() -> None:
    """Behind what it has sent."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        raise OSError("broken")

    sent = list[Any]()
    with pytest.raises(OSError, match="broken"):
        sent += [messages async for messages in answered(broken, carried(SCOPE, b"", ""))]
    assert sent == []


def test_figures_of_several_replicas() -> None:
    """Every family once, and whose each figure is."""
    one, other = Metrics(), Metrics()
    one.left("tiny")
    other.first_text("tiny", 0.1)
    text = together([("a", one.text().decode()), ("b", other.text().decode())]).decode()
    assert 'dllm_left_total{model="tiny",replica="a"} 1.0' in text
    assert 'dllm_first_text_seconds_bucket{le="0.1",model="tiny",replica="b"} 1.0' in text
    assert text.count("# TYPE dllm_left_total counter") == 1
