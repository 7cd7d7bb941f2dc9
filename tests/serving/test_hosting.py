"""Models that are loaded when they are asked for, and dropped when nobody uses them."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI

from dllm_plugins import Model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.serving import hosting
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.weight import on_disk
from dllm_plugins.serving.weight import weight_of
from dllm_plugins.sharing import SharedModel

from .asking import asked
from .asking import body
from .asking import refused
from .by_hand import Caller
from .conftest import client_of
from .test_scheduling import until


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, load_tiny: Callable[[str], Model]) -> list[str]:
    """Names of models in the order in which they are loaded; each is one of its own, of a hundred bytes."""
    found, lock = list[str](), threading.Lock()

    def load(loading: Loading) -> tuple[SharedModel, int]:
        with lock:
            found.append(loading.place)
        if loading.place == "broken":
            raise CheckpointError("its weights are damaged")
        return SharedModel(load_tiny("float32")), 100

    monkeypatch.setattr(hosting, "_load_now", load)
    return found


def several(*names: str) -> dict[str, Loading]:
    return {name: Loading(name) for name in names}


async def test_each_is_loaded_once_and_when_it_is_asked_for(
    make_app: Callable[..., FastAPI], loaded: list[str]
) -> None:
    """Also by many at once."""
    async with client_of(make_app(models=several("a", "b"))) as client:
        assert loaded == []
        await asyncio.gather(*(asked(client, model="b") for _ in range(4)))
        await asked(client, model="b")
        assert loaded == ["b"]
        await asked(client, model="a")
        assert loaded == ["b", "a"]
        assert 'dllm_loaded_bytes{model="b"} 100.0' in (await client.get("/metrics")).text


async def test_within_a_budget_the_one_unused_for_longest_makes_room(
    make_app: Callable[..., FastAPI], loaded: list[str], gate: threading.Event
) -> None:
    """One that is in use is waited for."""
    app = make_app(models=several("a", "b", "c"), memory=250)
    async with client_of(app) as client:
        for name in ("a", "b", "a", "c", "a", "b"):
            await asked(client, model=name)
        assert loaded == ["a", "b", "c", "b"]
        models = app.state.service.models
        gate.clear()
        callers = [Caller(app, body(max_tokens=60) | {"model": name}) for name in ("a", "b")]
        await until(lambda: models.busy == 2)
        waits = asyncio.create_task(asked(client, model="c"))
        await until(lambda: models._hosted["c"].users == 1)
        assert not waits.done()
        gate.set()
        assert (await waits)["model"] == "c"
        await asyncio.gather(*(caller.task for caller in callers))
        assert [caller.status for caller in callers] == [200, 200]


async def test_a_model_that_nobody_uses_is_dropped(make_app: Callable[..., FastAPI], loaded: list[str]) -> None:
    """With its memory; the next request loads it again."""
    app = make_app(models=several("a"), idle=0.01)
    async with client_of(app) as client:
        await asked(client, model="a")
        models = app.state.service.models
        kept = [weakref.ref(scheduler.shared) for scheduler in models._there()]
        await until(lambda: not models._there() and not models._dropping)
        gc.collect()
        assert all(ref() is None for ref in kept)
        await asked(client, model="a")
    assert loaded == ["a", "a"]


async def test_a_model_that_cannot_be_loaded(make_app: Callable[..., FastAPI], loaded: list[str]) -> None:
    """Every request for it says why, and tries again; others are served."""
    async with client_of(make_app(models=several("broken", "a"))) as client:
        for _ in range(2):
            status, error = await refused(client, json=body(model="broken"))
            assert status == 500
            assert "damaged" in error["message"]
        await asked(client, model="a")
    assert loaded == ["broken", "broken", "a"]


async def test_who_leaves_while_it_is_loaded_does_not_end_the_loading(
    make_app: Callable[..., FastAPI], load_tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others wait for it."""
    may, count = threading.Event(), 0

    def load(_loading: Loading) -> tuple[SharedModel, int]:
        nonlocal count
        count += 1
        may.wait()
        return SharedModel(load_tiny("float32")), 100

    monkeypatch.setattr(hosting, "_load_now", load)
    app = make_app()
    leaves, stays = Caller(app, body()), Caller(app, body())
    await until(lambda: count == 1)
    leaves.leave()
    await leaves.task
    may.set()
    await stays.task
    assert (stays.status, count) == (200, 1)


def test_weights_are_counted(loading: Loading, held: SharedModel) -> None:
    """Files before a model is loaded, tensors afterwards: in float32 this one has some hundred thousand bytes."""
    files: Any = loading.options["base"]
    assert on_disk(loading) > 300_000
    assert on_disk(Loading(files)) == on_disk(loading)
    assert on_disk(Loading("no/such/place")) == 0
    own = sum(tensor.nbytes for tensor in held.model.denoiser.__dict__.values() if hasattr(tensor, "nbytes"))
    assert max(own, on_disk(loading)) <= weight_of(held.model.denoiser) < 20_000_000
