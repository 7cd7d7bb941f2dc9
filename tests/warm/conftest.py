"""A server of the tiny model in a thread of this process, found by its socket alone."""

import json
import re
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import sharing
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.background import Background
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model
from dllm_plugins.warm.model import WarmShared
from dllm_plugins.warm.opening import open_model
from dllm_plugins.warm.place import VARIABLE

Serve = Callable[..., Background]
QUESTION = [{"role": "user", "content": "why?"}]


@pytest.fixture(scope="session")
def loading(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Loading:
    """How the tiny model is loaded, with room for prompts in bytes that tell of tools."""
    base = tmp_path_factory.mktemp("warm") / "roomy"
    shutil.copytree(tiny_folder, base)
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (base / "config.json").write_text(json.dumps(config))
    denoiser = str(tiny_folder.parent / "denoiser.safetensors")
    return Loading("dllm", {"base": str(base), "denoiser": denoiser, "dtype": "float32"})


@pytest.fixture(scope="session")
def held(loading: Loading) -> SharedModel:
    """The model of this process, which the server uses as well."""
    return shared_model(loading.place, **loading.options)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The socket that clients are told of."""
    found = tmp_path / "server" / "here.sock"
    monkeypatch.setenv(VARIABLE, str(found))
    return found


@pytest.fixture
def serve(place: Path, loading: Loading, held: SharedModel) -> Iterator[Serve]:
    """Start a server there."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Background:
            local = stack.enter_context(LocalSocket(place))
            given = {"models": {"dllm": loading}, **settings}
            return stack.enter_context(Background(ServerSettings(**given), local=local))

        yield start


@pytest.fixture
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients cannot load a model; servers know another name for that."""

    def refuse(name: str, **options: Any) -> SharedModel:
        raise AssertionError("the model was loaded here")

    monkeypatch.setattr(sharing, "shared_model", refuse)


@pytest.fixture
def warm(serve: Serve, nothing_here: None, loading: Loading, held: SharedModel) -> WarmShared:
    """The model as a client has it."""
    serve()
    held.prefixes.clear()
    found = open_model(loading.place, dict(loading.options))
    assert isinstance(found, WarmShared)
    return found


def told(event: Event) -> Event:
    """An event without what is never the same twice."""
    event = replace(event, row=0)
    if isinstance(event, Finish):
        return replace(event, usage=replace(event.usage, seconds=0.0, prefill_seconds=0.0, parts=None))
    return event


def untimed(text: str) -> str:
    """A text without seconds."""
    return re.sub(r"\d+\.\d+ s\b", "... s", text)
