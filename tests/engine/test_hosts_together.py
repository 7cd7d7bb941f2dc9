"""Several hosts in one process hold one model, loaded once."""

import gc
import weakref
from pathlib import Path

import pytest

from langchain_dllm import ChatDLLM
from llm_dllm import loading as llm_loading


def test_llm_and_langchain_share_a_model(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same object, prefixes included; freed when the last host lets go of it."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    monkeypatch.setenv("DLLM_BASE", str(tiny_folder))
    monkeypatch.setenv("DLLM_DENOISER", str(denoiser))
    monkeypatch.setenv("DLLM_DTYPE", "float16")
    shared = llm_loading.loaded_model()
    chat = ChatDLLM(base=str(tiny_folder), denoiser=str(denoiser), dtype="float16")
    assert chat._shared("dllm") is shared
    gone = weakref.ref(shared)
    llm_loading._held.clear()
    del shared
    gc.collect()
    assert gone() is not None
    del chat
    gc.collect()
    assert gone() is None
