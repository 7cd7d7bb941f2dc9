"""Servers of the tiny model in this process, and what the engine alone answers."""

import json
import shutil
import threading
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.serving.app import create_app
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model

from ..text.thinking_templates import SWITCHED
from ..thoughtful import thoughtful


@pytest.fixture(scope="session")
def loading(tiny_folder: Path) -> Loading:
    """How the tiny model is loaded."""
    denoiser = str(tiny_folder.parent / "denoiser.safetensors")
    return Loading("dllm", {"base": str(tiny_folder), "denoiser": denoiser, "dtype": "float32", "device": "cpu"})


@pytest.fixture(scope="session")
def held(loading: Loading) -> SharedModel:
    """The model that servers load, so that it is loaded once."""
    return shared_model(loading.place, **loading.options)


@pytest.fixture(scope="session")
def roomy(tiny_folder: Path, loading: Loading, tmp_path_factory: pytest.TempPathFactory) -> Loading:
    """The same with room for prompts in bytes that tell of tools."""
    base = tmp_path_factory.mktemp("serving") / "roomy"
    shutil.copytree(tiny_folder, base)
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (base / "config.json").write_text(json.dumps(config))
    return Loading("dllm", {**loading.options, "base": str(base)})


@pytest.fixture(scope="session")
def held_roomy(roomy: Loading) -> SharedModel:
    """Loaded once."""
    return shared_model(roomy.place, **roomy.options)


@pytest.fixture(scope="session")
def thinker(tiny_folder: Path, loading: Loading, tmp_path_factory: pytest.TempPathFactory) -> Loading:
    """The tiny model as one that thinks, unless that is turned off: prompts begin it."""
    template = SWITCHED.replace("{% endif %}{% endif %}", "{% else %}<think>\n{% endif %}{% endif %}")
    base = thoughtful(tiny_folder, tmp_path_factory.mktemp("thinker") / "base", template)
    return Loading("dllm", {**loading.options, "base": str(base)})


@pytest.fixture(scope="session")
def held_thinker(thinker: Loading) -> SharedModel:
    """Loaded once."""
    return shared_model(thinker.place, **thinker.options)


@pytest.fixture
async def make_app(loading: Loading, held: SharedModel) -> AsyncIterator[Callable[..., FastAPI]]:
    """Make applications that serve it under the name `tiny`."""
    made = list[FastAPI]()

    def make(**settings: Any) -> FastAPI:
        made.append(create_app(ServerSettings(**{"models": {"tiny": loading}, **settings})))
        return made[-1]

    yield make
    for app in made:
        await app.state.service.models.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """No pass is made while this is cleared."""
    found = threading.Event()
    found.set()
    advance = Engine.advance

    def waiting(self: Engine, tell: Any) -> None:
        found.wait()
        advance(self, tell)

    monkeypatch.setattr(Engine, "advance", waiting)
    yield found
    found.set()


def client_of(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    """A client of an application in this process."""
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, timeout=60)


@pytest.fixture
async def client(make_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that has nothing but defaults."""
    async with client_of(make_app()) as made:
        yield made


@pytest.fixture
def alone(tiny: Model) -> Callable[..., Finish]:
    """What the engine alone answers to a question, or to a chat."""

    def answer(asked: str | list[dict[str, str]], **options: Any) -> Finish:
        chat = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        config = SamplingConfig(**{"max_new_tokens": 16, **options})
        return tiny.engine().generate([Request(tiny.encode_chat(chat), config)])[0]

    return answer
