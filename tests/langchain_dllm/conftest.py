"""Models of the adapter on the tiny weights, and what the engine itself answers."""

from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM


@pytest.fixture
def loading(tiny_folder: Path) -> dict[str, Any]:
    """Options that load the tiny model."""
    denoiser = str(tiny_folder.parent / "denoiser.safetensors")
    return {"base": str(tiny_folder), "denoiser": denoiser, "dtype": "float32", "device": "cpu", "max_tokens": 20}


@pytest.fixture(scope="session")
def questions() -> list[Any]:
    """Eight of unequal length."""
    return ["why?" + " or how?" * number for number in range(8)]


@pytest.fixture
def chat(loading: dict[str, Any]) -> Callable[..., ChatDLLM]:
    """Make a ChatDLLM of the tiny model."""
    return lambda **options: ChatDLLM(**{**loading, **options})


@pytest.fixture
def text(loading: dict[str, Any]) -> Callable[..., DLLM]:
    """Make a DLLM of the tiny model."""
    return lambda **options: DLLM(**{**loading, **options})


@pytest.fixture(scope="session")
def engine(tiny: Model) -> Callable[..., Finish]:
    """What the engine answers to a question, or to messages as (role, text)."""

    def answer(asked: str | list[tuple[str, str]], **options: Any) -> Finish:
        chat = [("user", asked)] if isinstance(asked, str) else asked
        tokens = tiny.encode_chat([{"role": role, "content": content} for role, content in chat])
        return tiny.engine().generate([Request(tokens, SamplingConfig(**{"max_new_tokens": 20, **options}))])[0]

    return answer


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests took part in each pass."""
    found: list[int] = []
    forward = TriModeDenoiser.forward

    def counted(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        found.append(len({segment.row for segment in segments}))
        return forward(self, segments)

    monkeypatch.setattr(TriModeDenoiser, "forward", counted)
    return found
