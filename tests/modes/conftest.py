"""Fixtures: a tiny DiffusionGemma, on disk and behind our engine."""

from pathlib import Path

import pytest

from dllm_plugins import Model
from dllm_plugins import load_model

from .tiny_gemma import save_gemma


@pytest.fixture(scope="session")
def gemma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("gemma")
    save_gemma(folder)
    return folder


@pytest.fixture(scope="session")
def gemma(gemma_folder: Path) -> Model:
    """It behind our engine, in float32."""
    return load_model(str(gemma_folder), dtype="float32", device="cpu")
