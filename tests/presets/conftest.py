"""The shipped puzzle models, loaded once."""

from typing import Any

import pytest

from dllm_plugins.models import Model
from dllm_plugins.presets import SUDOKU
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model

#: What the accuracy is claimed for: one thread's numerics, as everywhere on CPUs.
OPTIONS: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


@pytest.fixture(scope="session")
def shared() -> SharedModel:
    """It solves Sudoku, for all who ask in this process."""
    return shared_model(SUDOKU, **OPTIONS)


@pytest.fixture
def sudoku(shared: SharedModel) -> Model:
    """The model alone."""
    return shared.model
