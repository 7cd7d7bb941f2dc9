"""Whose turn it is: queue, budget, clients that leave or read slowly, and the end of the server."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins.engine import Engine
from dllm_plugins.serving.scheduling import Scheduler
from dllm_plugins.serving.service import Service
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import SharedRows

from .asking import asked
from .asking import body
from .asking import events
from .asking import refused
from .asking import text_of
from .by_hand import Caller
from .conftest import client_of

LONG = 300


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows took part in each pass."""
    found = list[int]()
    advance = Engine.advance

    def counted(self: Engine, tell: Any) -> None:
        if self.active:
            found.append(len(self.active))
        advance(self, tell)

    monkeypatch.setattr(Engine, "advance", counted)
    return found


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    while not holds():
        await asyncio.sleep(0.001)


def service_of(app: FastAPI) -> Service:
    found: Service = app.state.service
    return found


def scheduler_of(app: FastAPI) -> Scheduler:
    [found] = service_of(app).models._there()
    return found


def kept_by(shared: SharedModel, *positions: int) -> int:
    """Bytes of keys and values of rows of so many positions."""
    denoiser: Any = shared.model.denoiser
    more = denoiser.spec.block_length + denoiser.spec.draft_length
    found: int = denoiser.keys_bytes([count + more for count in positions])
    return found


async def test_no_more_rows_at_once_than_allowed(
    make_app: Callable[..., FastAPI], alone: Callable[..., Finish], held: SharedModel, rows: list[int]
) -> None:
    """Nor more than there is memory for; all are answered in the end, as alone."""
    finishes = [alone("why?" * (number + 1)) for number in range(5)]
    expected = [finish.text for finish in finishes]
    rows.clear()
    two = kept_by(held, *(finish.usage.prompt_tokens + 16 for finish in finishes[-2:]))
    for settings in ({"rows": 2}, {"kv_memory": two}):
        async with client_of(make_app(**settings)) as client:
            answers = await asyncio.gather(*(asked(client, "why?" * (number + 1)) for number in range(5)))
        assert [answer["choices"][0]["message"]["content"] for answer in answers] == expected
        assert max(rows) == 2
        rows.clear()


async def test_first_come_first_served(
    make_app: Callable[..., FastAPI], gate: threading.Event, held: SharedModel
) -> None:
    """A long prompt that finds no room lets nobody pass, however short."""
    app, order = make_app(kv_memory=kept_by(held, 100)), list[str]()

    async def ask(question: str, length: int) -> None:
        await asked(client, question, max_tokens=length, temperature=1.0, seed=1)
        order.append(question)

    async with client_of(app) as client:
        await asked(client)
        gate.clear()
        first = Caller(app, body(max_tokens=40, temperature=1.0, seed=1))
        await until(lambda: scheduler_of(app).busy == 1)
        long = asyncio.create_task(ask("l" * 60, 5))
        await until(lambda: scheduler_of(app).busy == 2)
        short = asyncio.create_task(ask("s", 1))
        await until(lambda: scheduler_of(app).busy == 3)
        gate.set()
        await asyncio.gather(short, long)
        assert order == ["l" * 60, "s"]
        await first.task


async def test_keys_and_values_keep_within_their_memory(
    make_app: Callable[..., FastAPI], held: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of rows and of kept prefixes, in every pass; what never fits is refused by both sizes."""
    budget, found = kept_by(held, 100, 100, 100), list[int]()
    denoiser: Any = held.model.denoiser
    advance = Engine.advance

    def measured(self: Engine, tell: Any) -> None:
        advance(self, tell)
        kept = [kept.state for kept in held.prefixes._kept]
        found.append(sum(store.nbytes for store in [*denoiser._rows.values(), *kept]))

    monkeypatch.setattr(Engine, "advance", measured)
    held.prefixes.clear()
    async with client_of(make_app(kv_memory=budget)) as client:
        await asyncio.gather(*(asked(client, f"{number} why?", max_tokens=30) for number in range(9)))
        assert 0.3 * budget < max(found) <= budget
        status, error = await refused(client, json=body(max_tokens=400))
    assert (status, error["code"]) == (400, "kv_memory")
    assert f"{budget / (1 << 20):.1f} MiB" in error["message"]


async def test_memory_for_keys_changes_while_rows_are_at_work(
    make_app: Callable[..., FastAPI], gate: threading.Event, held: SharedModel
) -> None:
    """What is at work is finished; what waits, and would now wait for ever, is refused; the rest has its turn."""
    app = make_app(rows=1)
    async with client_of(app) as client:
        await asked(client)
        callers = [Caller(app, body(max_tokens=LONG))]
        await until(lambda: bool(scheduler_of(app)._working))
        gate.clear()
        callers += [Caller(app, body(max_tokens=count)) for count in (80, 1)]
        await until(lambda: len(scheduler_of(app)._waiting) == 2)
        service_of(app).bound(replace(service_of(app).settings, kv_memory=kept_by(held, 40)))
        gate.set()
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [200, 400, 200]
        assert (await refused(client, json=body(max_tokens=80)))[1]["code"] == "kv_memory"
        service_of(app).bound(replace(service_of(app).settings, kv_memory=None))
        await asked(client, max_tokens=80)


async def test_a_model_that_tells_nothing_of_its_keys(
    make_app: Callable[..., FastAPI], held: SharedModel, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Is served all the same, and the log says that nothing is bounded."""
    monkeypatch.setattr(type(held.model.denoiser), "keys_bytes", lambda _self, _rows: None)
    async with client_of(make_app(kv_memory=1)) as client:
        await asked(client)
    assert "nobody knows what keys and values" in caplog.text


async def test_a_full_queue_turns_away(make_app: Callable[..., FastAPI], gate: threading.Event) -> None:
    """By 429, and says when to come back; those who wait are answered."""
    app = make_app(rows=1, waiting=1)
    async with client_of(app) as client:
        await asked(client)
        gate.clear()
        callers = [Caller(app, body(max_tokens=60)) for _ in range(2)]
        await until(lambda: scheduler_of(app).busy == 2)
        answer = await client.post("/v1/chat/completions", json=body())
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error"
        gate.set()
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [200, 200]
        status, error = await refused(client, json=body(n=3))
        assert (status, error["param"]) == (400, "n")
        assert 'dllm_refused_total{model="tiny"} 1.0' in (await client.get("/metrics")).text


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_frees_the_row(make_app: Callable[..., FastAPI], rows: list[int], stream: bool) -> None:
    """Within one pass, whether the answer is streamed or not; and a place in the queue at once."""
    app = make_app(rows=1)
    async with client_of(app) as client:
        await asked(client)
        caller = Caller(app, body(max_tokens=LONG, stream=stream, dllm={"mode": "ar"}))
        waits = Caller(app, body(max_tokens=LONG, stream=stream))
        passes = len(rows)
        await until(lambda: len(rows) > passes + 2 and scheduler_of(app).busy == 2)
        waits.leave()
        await waits.task
        assert scheduler_of(app).busy == 1
        caller.leave()
        await caller.task
        at_most = len(rows) + 1
        await asked(client)
        await until(lambda: scheduler_of(app).busy == 0)
        assert rows[at_most:] == [1] * len(rows[at_most:])
        assert len(rows) - at_most < LONG
        assert 'dllm_left_total{model="tiny"} 2.0' in (await client.get("/metrics")).text
    assert not scheduler_of(app).shared._engine.active


async def test_slow_readers_hold_nobody(make_app: Callable[..., FastAPI], alone: Callable[..., Finish]) -> None:
    """What they have not read is merged, and is all there when they read."""
    app = make_app()
    own = {"mode": "ar"}
    async with client_of(app) as client:
        slow = Caller(app, body(max_tokens=60, stream=True, dllm={**own, "draft_events": True}), slow=True)
        await until(lambda: slow.status == 200)
        expected = alone("how?").text
        assert (await asked(client, "how?"))["choices"][0]["message"]["content"] == expected
        await until(lambda: scheduler_of(app).busy == 0)
        slow.open.set()
        await slow.task
    found = events(slow.text)
    assert text_of(found) == alone("why?", max_new_tokens=60, **own).text
    assert len(found) < 10


async def test_a_server_that_stops_finishes_what_runs(
    make_app: Callable[..., FastAPI],
    alone: Callable[..., Finish],
    gate: threading.Event,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And takes nothing more."""
    app = make_app()
    expected = alone("why?", max_new_tokens=40).text
    gate.clear()
    async with client_of(app) as client:
        caller = Caller(app, body(max_tokens=40))
        await until(lambda: bool(service_of(app).models._there()) and scheduler_of(app).busy == 1)
        stopping = asyncio.create_task(service_of(app).stop())
        await until(lambda: service_of(app).stopping)
        status, error = await refused(client, json=body())
        assert (status, error["code"]) == (503, "stopping")
        assert (await client.get("/health")).status_code == 503
        gate.set()
        await stopping
        await caller.task
    assert caller.status == 200
    assert json.loads(caller.text)["choices"][0]["message"]["content"] == expected
    assert "every answer was finished" in caplog.text


async def test_after_the_time_of_grace_answers_are_cut(
    make_app: Callable[..., FastAPI], gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Each client is told, by a status or in its stream."""
    app = make_app(grace=0, rows=1)
    stream = Caller(app, body(max_tokens=LONG, stream=True, dllm={"mode": "ar"}))
    await until(lambda: stream.status == 200)
    gate.clear()
    whole = Caller(app, body(max_tokens=LONG))
    await until(lambda: scheduler_of(app).busy == 2)
    await service_of(app).stop()
    gate.set()
    await asyncio.gather(stream.task, whole.task)
    assert whole.status == 503
    assert [data["error"]["code"] for _, data in events(stream.text)[-2:-1]] == ["stopping"]
    assert "2 answers were cut" in caplog.text


async def test_a_pass_that_fails(make_app: Callable[..., FastAPI], held: SharedModel, monkeypatch: Any) -> None:
    """Ends its requests by 500, and the server goes on."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("secret of the machine")

    async with client_of(make_app()) as client:
        expected = await asked(client)
        with monkeypatch.context() as patch:
            patch.setattr(type(held.model.denoiser), "forward", fail)
            status, error = await refused(client, json=body())
        assert status == 500
        assert error["type"] == "server_error"
        assert (await asked(client))["choices"] == expected["choices"]


async def test_what_nobody_foresaw(
    make_app: Callable[..., FastAPI], gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends all requests by 500, those that had just come, too; their rows are gone, and the next ones are served."""

    def fail(self: SharedRows) -> Any:
        gate.wait()
        raise RuntimeError("secret of the machine")

    app = make_app(rows=2)
    async with client_of(app) as client:
        expected = await asked(client)
        with monkeypatch.context() as patch:
            patch.setattr(SharedRows, "advance", fail)
            gate.clear()
            callers = [Caller(app, body()) for _ in range(3)]
            await until(lambda: scheduler_of(app).busy == 3)
            gate.set()
            await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [500] * 3
        assert not any("secret" in caller.text for caller in callers)
        assert (await asked(client))["choices"] == expected["choices"]
    assert not scheduler_of(app).shared._engine.active


async def test_whoever_wants_the_very_bits_is_given_no_slices_that_change_them(
    make_app: Callable[..., FastAPI], gate: threading.Event, held: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In company, where numerics are not row-invariant."""
    app, request = make_app(slice=20), Request(held.model.encode_chat([{"role": "user", "content": "why?"}]))
    async with client_of(app) as client:
        await asked(client)
        gate.clear()
        caller, found = Caller(app, body()), list[int | None]()
        await until(lambda: scheduler_of(app).busy == 1)
        for numerics in ("row-invariant", "approximate"):
            monkeypatch.setattr(held.model.denoiser, "spec", replace(held.model.denoiser.spec, numerics=numerics))
            answers = scheduler_of(app).ask([request], own=True)
            found += [row.request.slice for row in answers._rows]
            answers.close()
        assert found == [20, None]
        gate.set()
        await caller.task


async def test_long_prompts_are_read_in_slices(make_app: Callable[..., FastAPI], alone: Callable[..., Finish]) -> None:
    """The answer is that of the whole prompt."""
    async with client_of(make_app(slice=20)) as client:
        answer = await asked(client, "Why? " * 20, dllm={})
    assert answer["choices"][0]["message"]["content"] == alone("Why? " * 20).text
    [statistics] = answer["dllm"]["statistics"]
    assert statistics["passes"]["slice"] == (answer["usage"]["prompt_tokens"] - statistics["cached_tokens"] - 1) // 20
