"""Fixtures for the default model on llama.cpp."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import tri_mode


@pytest.fixture(scope="module")
def gguf_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a module's files for llama.cpp are kept, away from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("cache")
        patch.setenv("DLLM_CACHE", str(place))
        yield place / "gguf"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, gguf_cache: Path) -> tri_mode.Files:
    """A tri-mode model of random weights."""
    assert gguf_cache.name == "gguf"
    return tri_mode.write(tmp_path_factory.mktemp("tri-mode"), tiny_folder)
