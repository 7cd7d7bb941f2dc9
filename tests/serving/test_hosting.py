"""Models that are loaded when they are asked for, and dropped when nobody uses them."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from huggingface_hub import HfApi

from dllm_plugins import Model
from dllm_plugins.default_model import base_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.serving import hosting
from dllm_plugins.serving.estimate import before_loading
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.weight import weight_of
from dllm_plugins.sharing import SharedModel

from .asking import asked
from .asking import body
from .asking import refused
from .by_hand import Caller
from .conftest import client_of
from .test_scheduling import until

#: What is known of models before they are loaded; of others that they have a hundred bytes.
SIZES = {"huge": 300, "unknown": None, "small": 10}


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
    monkeypatch.setattr(hosting, "before_loading", lambda loading: SIZES.get(loading.place, 100))
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


async def test_a_model_that_is_larger_than_all_the_room(make_app: Callable[..., FastAPI], loaded: list[str]) -> None:
    """Is refused before it is loaded, or afterwards if it was thought to be smaller; without a budget it is loaded."""
    async with client_of(make_app(models=several("huge", "small", "a"), memory=90)) as client:
        for name, times in (("huge", 1), ("small", 2), ("a", 1)):
            for _ in range(times):
                status, error = await refused(client, json=body(model=name))
                assert (status, error["code"], error["param"]) == (400, "model_too_large", "model")
    assert loaded == ["small"]
    async with client_of(make_app(models=several("huge"))) as client:
        await asked(client, model="huge")


async def test_a_model_of_unknown_size_is_loaded_alone(
    make_app: Callable[..., FastAPI], loaded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The first time; then it is known."""
    async with client_of(make_app(models=several("a", "b", "unknown"), memory=350)) as client:
        for name in ("a", "b", "unknown", "a", "b", "unknown", "a"):
            await asked(client, model=name)
    assert loaded == ["a", "b", "unknown", "a", "b"]
    assert "loaded alone" in caplog.text


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
    """By their files before a model is loaded, by tensors afterwards."""
    files = str(loading.options["base"])
    found = before_loading(loading)
    assert found is not None
    assert found > 300_000
    assert before_loading(Loading(files, {"dtype": "float32"})) == found
    assert before_loading(Loading(files, {"dtype": "bfloat16"})) == found // 2
    assert before_loading(Loading(files, {"weights": "int8", "device": "cpu"})) == found // 4
    assert before_loading(Loading(f"{files}/model.safetensors")) == Path(files, "model.safetensors").stat().st_size
    assert before_loading(Loading("dllm")) == base_model.GGUF_SIZE
    assert before_loading(Loading("elsewhere")) is None
    assert found <= weight_of(held.model.denoiser) < 20_000_000


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_packed_weights_are_weighed() -> None:
    """oneDNN's tensors have no storage that anybody could ask."""
    plain = torch.zeros(64, 32)
    assert weight_of([plain, plain.to_mkldnn()]) == 2 * plain.nbytes


class _Standing(torch.Tensor):
    """Stands for two others, as quantised weights of torchao do for levels and scales."""

    levels: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise AssertionError(f"{func} is not asked")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["levels", "scales"], None


def test_what_stands_for_others_weighs_what_they_do() -> None:
    standing = torch.Tensor._make_wrapper_subclass(_Standing, (4, 8), dtype=torch.bfloat16)
    standing.levels, standing.scales = torch.zeros(4, 8, dtype=torch.int8), torch.ones(4)
    assert weight_of([standing]) == 4 * 8 + 4 * 4


def test_weights_on_the_hub(loading: Loading, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of its copy in the cache, without a network; else what the hub says; else nobody knows."""
    name, files = "somebody/model", Path(str(loading.options["base"]))
    folder = tmp_path / "models--somebody--model"
    wanted = Loading(name, {"dtype": "float32"})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert before_loading(wanted) is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    def told(_self: HfApi, repo: str, **_more: Any) -> Any:
        return SimpleNamespace(parameter_count={"F32": 1000, "BF16": 10, "I64": 1})

    with monkeypatch.context() as patch:
        patch.setattr(HfApi, "get_safetensors_metadata", told)
        assert before_loading(wanted) == 4 * 1010 + 8
    commit = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    shutil.copytree(files, folder / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert before_loading(wanted) == before_loading(Loading(str(files), {"dtype": "float32"}))
