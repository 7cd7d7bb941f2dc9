"""The application on two replicas. These tests build on one another, in this order: starting a replica takes long."""

import json
import re
import threading
from collections.abc import AsyncIterator
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from ray import serve
from ray.exceptions import RayTaskError

from dllm_plugins.serving.background import Background
from dllm_plugins.serving.ray.conversation import conversation_of
from dllm_plugins.serving.ray.conversation import ranked
from dllm_plugins.serving.ray.relay import Relay
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings

from ..asking import CHAT
from ..asking import body
from ..asking import events
from ..asking import text_of
from . import cluster

#: A stream of some seconds.
LONG: Any = {"stream": True, "max_tokens": 2500, "dllm": {"mode": "ar", "min_new_tokens": 800}}


@pytest.fixture(scope="module")
def models(roomy: Loading) -> dict[str, Any]:
    """Three, of which the first is loaded before a replica is ready."""
    load = {"place": "dllm", **roomy.options}
    del load["device"]
    split = {"model": "cpu", "model.layers.1": "cpu", "lm_head": "cpu"}
    return {
        "tiny": load,
        "spread": load | {"device_map": split},
        "lost": load | {"device_map": {"model.layers.0": "cpu"}},
    }


@pytest.fixture(scope="module")
def args(models: dict[str, Any]) -> dict[str, Any]:
    """What the application is told at first."""
    return {"models": models, "body": 50_000, "grace": 100}


@pytest.fixture(scope="module", autouse=True)
def deployed(args: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The application, with as many replicas as it needs; the folder of its config."""
    folder = tmp_path_factory.mktemp("config")
    cluster.start()
    quick = {"upscale_delay_s": 0, "metrics_interval_s": 0.2, "look_back_period_s": 0.5}
    autoscaling = {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 2, **quick}
    cluster.deploy(folder, args, {"num_replicas": "auto", "autoscaling_config": autoscaling})
    cluster.until(cluster.running)
    yield folder
    serve.shutdown()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """One with a key."""
    with cluster.client() as found:
        yield found


class Stream(threading.Thread):
    """A stream that is read beside what else happens."""

    def __init__(self, question: str, path: str = CHAT, **more: Any) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.text = ""
        self.status = 0
        self.after: str | None = None
        self._path = path
        self._asked = body(question, **LONG | more) if path == CHAT else {"model": "tiny", **more}
        self.start()

    def run(self) -> None:
        """Read it to its end."""
        with cluster.client() as client, client.stream("POST", self._path, json=self._asked) as answer:
            self.status, self.after = answer.status_code, answer.headers.get("retry-after")
            for text in answer.iter_text():
                self.text += text
                if text.count("data:") or self.text.count("data:") > 1:
                    self.begun.set()

    def ended(self) -> list[tuple[str, Any]]:
        """Its events."""
        self.join(cluster.PATIENCE)
        assert not self.is_alive()
        return events(self.text)


def begun(*streams: Stream) -> None:
    """Wait until all of them have begun."""
    for stream in streams:
        assert stream.begun.wait(cluster.PATIENCE)


def whole(stream: Stream) -> Any:
    """Whether a stream came to its end."""
    found = stream.ended()
    reasons = [data["choices"][0]["finish_reason"] for _, data in found if data != "[DONE]" and data.get("choices")]
    return found[-1][1] == "[DONE]" and reasons[-1] in ("length", "stop")


def question_for(replica: str, beside: Iterable[str]) -> str:
    """One that is asked of a certain replica."""
    names = dict.fromkeys(beside, 0)
    for number in range(1000):
        asked = f"question {number}"
        if ranked(conversation_of(json.dumps(body(asked)).encode()), names, 8)[0] == replica:
            return asked
    raise AssertionError(replica)


async def test_what_breaks_off_is_told_once() -> None:
    """Before anything was sent, in a stream, in an answer that is no stream, and behind a whole one."""
    begun: list[Any] = [{"type": "http.response.start", "status": 200, "headers": []}]
    stream = [{**begun[0], "headers": [(b"content-type", b"text/event-stream")]}]
    half, rest = ({"type": "http.response.body", "body": b"x", "more_body": more} for more in (True, False))
    error = RayTaskError("answer", "", ValueError("secret"))
    assert [told["type"] for told in await _relayed([], error)] == ["http.response.start", "http.response.body"]
    *_, last = await _relayed([*stream, half], error)
    assert b"internal_error" in last["body"]
    assert b"secret" not in last["body"]
    assert not last["more_body"]
    with pytest.raises(RayTaskError):
        await _relayed([*begun, half], error)
    assert await _relayed([*begun, rest], error) == [*begun, rest]


async def _relayed(messages: list[Any], error: Exception) -> list[Any]:
    async def response() -> AsyncIterator[list[Any]]:
        yield messages
        raise error

    async def receive() -> Any:
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    sent = list[Any]()
    await Relay({"type": "http", "path": CHAT}, receive, send).all(response())
    return sent


def test_replicas_come_with_the_load(client: httpx.Client, deployed: Path, args: dict[str, Any]) -> None:
    """Ray counts what is under way; from here on there are two, on a device each."""
    assert len(cluster.servers()) == 1
    assert cluster.free_devices() == 1
    streams = [Stream(f"{number}", max_tokens=900) for number in range(6)]
    cluster.until(lambda: len(cluster.servers()) == 2)
    cluster.deploy(deployed, args, {"num_replicas": 2})
    cluster.until(cluster.running)
    cluster.until(lambda: len(cluster.figure(client, "dllm_loaded_bytes")) == 2)
    assert cluster.free_devices() == 0
    assert all(whole(stream) for stream in streams)


def test_the_same_as_one_server(client: httpx.Client, models: dict[str, Any]) -> None:
    """All addresses, errors among them, whole and as streams: the same statuses and bodies."""
    loadings = {name: Loading("dllm", {k: v for k, v in own.items() if k != "place"}) for name, own in models.items()}
    chat, drafts = body(n=2, seed=3, temperature=0.9), {"mode": "diffusion", "draft_events": True}
    posted = [
        (CHAT, chat),
        (CHAT, chat | {"stream": True, "stream_options": {"include_usage": True}}),
        (CHAT, body(stream=True, dllm=drafts)),
        (CHAT, body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": [1]}}})),
        (CHAT, body() | {"model": "spread"}),
        (CHAT, body() | {"model": "lost"}),
        (CHAT, body() | {"model": "none"}),
        (CHAT, body(logit_bias={"5": 1})),
        (CHAT, body("long" * 20_000)),
        ("/v1/completions", {"model": "tiny", "prompt": "ab", "suffix": "c", "max_tokens": 4}),
        ("/v1/responses", {"model": "tiny", "input": "why?", "max_output_tokens": 8, "stream": True}),
        ("/v1/nothing", {}),
        ("/health", {}),
    ]
    one = Background(ServerSettings(loadings, keys=frozenset({cluster.KEY}), body=50_000))
    address = one.address.removesuffix("/v1")
    with one, httpx.Client(base_url=address, headers=client.headers, timeout=cluster.PATIENCE) as single:
        for path, asked in posted:
            assert _told(client.post(path, json=asked)) == _told(single.post(path, json=asked)), (path, asked)
        for path in ("/v1/models", "/v1/models/tiny", "/v1/models/none", "/health", "/", "/nothing", "/openapi.json"):
            assert _told(client.get(path)) == _told(single.get(path)), path
        for sent in (b"{", b"\xff", b"[" * 20_000):
            head = {"Content-Type": "application/json"}
            found = [asked.post(CHAT, content=sent, headers=head) for asked in (client, single)]
            assert _told(found[0]) == _told(found[1])
        for key in ("", "Bearer wrong"):
            head = {"Authorization": key}
            found = [asked.get("/v1/models", headers=head) for asked in (client, single)]
            assert found[0].status_code == 401
            assert _told(found[0]) == _told(found[1])


def _told(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, kind and body, without names, clocks, what was kept of others, and how a stream was cut."""
    kind, text = answer.headers["content-type"], answer.text
    if kind.startswith("text/event-stream"):
        found = [(name, data) for name, data in events(text) if name != "draft"]
        whole = "".join(text_of(found, index) for index in range(2)) if "choices" in text else ""
        text = whole + json.dumps(found[-2:])
    text = re.sub(r"(chatcmpl-|cmpl-|resp_|msg_|call_|fc_)\w+", r"\1", text)
    text = re.sub(r'"(created|created_at|completed_at|sequence_number|cached_tokens)": ?[\d.]+', "", text)
    text = re.sub(r'"statistics": ?\[.*?\]', "", text)
    return answer.status_code, kind, text


def test_the_official_client() -> None:
    """Whole, streamed, and an error."""
    asked: Any = {"model": "tiny", "messages": body()["messages"], "max_tokens": 16}
    with openai.OpenAI(base_url=f"{cluster.ADDRESS}/v1", api_key=cluster.KEY, max_retries=0) as client:
        answer = client.chat.completions.create(**asked).choices[0].message.content
        stream = client.chat.completions.create(**asked, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == answer
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**asked | {"model": "none"})


def test_who_leaves_frees_its_row(client: httpx.Client) -> None:
    """Through the proxy, too; an answer that is left is none that was finished."""
    left, tokens = cluster.figure(client, "dllm_left_total"), cluster.figure(client, "dllm_tokens_total")
    with client.stream("POST", CHAT, json=body("left early", **LONG)) as answer:
        next(answer.iter_lines())
    cluster.until(lambda: sum(cluster.figure(client, "dllm_left_total").values()) == sum(left.values()) + 1)
    cluster.until(lambda: not any(cluster.figure(client, "dllm_working").values()))
    assert cluster.figure(client, "dllm_tokens_total") == tokens


def test_turns_find_their_prefix(client: httpx.Client) -> None:
    """Every later turn forwards what is new, wherever its conversation is; both replicas have some."""
    before = cluster.figure(client, "dllm_tokens_total")
    for question in [question_for(name, before) for name in before for _ in range(2)]:
        chat, seen = [{"role": "user", "content": question}], 0
        for _ in range(3):
            answer = client.post(CHAT, json={"model": "tiny", "messages": chat, "max_tokens": 8}).json()
            cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            # Of a prompt the last token is forwarded in any case.
            assert cached >= seen
            seen = answer["usage"]["prompt_tokens"] - 1
            chat += [answer["choices"][0]["message"], {"role": "user", "content": "more"}]
    after = cluster.figure(client, "dllm_tokens_total")
    assert all(after[name] > before[name] for name in before)


def test_bounds_change_under_way(client: httpx.Client, deployed: Path, args: dict[str, Any]) -> None:
    """By another user_config: replicas stay, their streams go on, and who finds no place is told when to come back."""
    names, stream = cluster.servers(), Stream("bounds")
    begun(stream)
    cluster.deploy(deployed, args, {"num_replicas": 2, "user_config": {"rows": 1, "waiting": 1}})
    cluster.until(cluster.running)
    # How many find a place in time is Ray's; some do, and not all.
    assert 0 < _turned_away(6) < 6
    assert whole(stream)
    few = {"num_replicas": 2, "user_config": {}, "max_ongoing_requests": 1, "max_queued_requests": 1}
    cluster.deploy(deployed, args, few)
    cluster.until(cluster.running)
    # One for each replica, and one that waits for either, if they come one by one.
    assert 0 < _turned_away(6) < 6
    cluster.deploy(deployed, args, {"num_replicas": 2, "user_config": {}})
    cluster.until(cluster.running)
    assert _turned_away(6) == 0
    assert cluster.servers() == names


def _turned_away(count: int) -> int:
    """How many of some streams of one conversation find no place; the others are answered."""
    crowd = [Stream("bounds", max_tokens=60, dllm={}) for _ in range(count)]
    for one in crowd:
        one.join(cluster.PATIENCE)
    refused = [one for one in crowd if one.status != 200]
    for one in refused:
        assert one.status == 429
        assert int(one.after or 0) > 0
        assert json.loads(one.text)["error"]["code"] == "server_busy"
    assert all(whole(one) for one in crowd if one.status == 200)
    return len(refused)


def test_a_killed_replica_costs_its_own_streams(client: httpx.Client) -> None:
    """They end by an error, in the form of their interface; others go on, and another replica comes."""
    names = cluster.servers()
    first, second = sorted(names)
    lost, kept = Stream(question_for(first, names)), Stream(question_for(second, names))
    asked = {"input": question_for(first, names), "max_output_tokens": 2500}
    third = Stream("", "/v1/responses", **asked, stream=True, dllm=LONG["dllm"])
    begun(lost, kept, third)
    cluster.kill(first)
    *_, (_, error), (_, end) = lost.ended()
    assert (error["error"]["code"], end) == ("replica_gone", "[DONE]")
    (_, before), (name, error) = third.ended()[-2:]
    assert (name, error.get("code")) == ("error", "replica_gone"), error
    assert error["sequence_number"] == before["sequence_number"] + 1
    for number in range(4):
        assert client.post(CHAT, json=body(f"{number}")).status_code == 200
    assert whole(kept)
    cluster.until(lambda: len(cluster.servers() - {first}) == 2)
    cluster.until(lambda: len(cluster.figure(client, "dllm_loaded_bytes")) == 2)


def test_an_update_drops_nothing(client: httpx.Client, deployed: Path, args: dict[str, Any]) -> None:
    """Other arguments are another version: replicas are replaced one by one, once their streams have ended."""
    names = cluster.servers()
    streams = [Stream(question_for(name, names)) for name in names]
    begun(*streams)
    cluster.deploy(deployed, args | {"rows": 31}, {"num_replicas": 2})
    statuses = list[int]()

    def replaced() -> bool:
        statuses.append(client.post(CHAT, json=body(f"{len(statuses)}")).status_code)
        return cluster.running() and not cluster.servers() & names

    cluster.until(replaced)
    assert all(whole(stream) for stream in streams)
    assert set(statuses) == {200}
