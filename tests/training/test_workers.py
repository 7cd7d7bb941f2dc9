"""Several processes train one denoiser: text is shared out, gradients are averaged, all stop at the same step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.training.base import FrozenBase
from dllm_plugins.training.base import open_base
from dllm_plugins.training.train import Recipe
from dllm_plugins.training.train import TrainingRun
from dllm_plugins.training.workers import Workers
from dllm_plugins.training.workers import workers

from .test_training import text

__all__ = ["text"]


class Other:
    """Stands for accelerate and another process, which always says the same."""

    def __init__(self, says: float) -> None:
        self.says = says

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "mean"
        return (tensor + self.says) / 2


def test_means_are_those_of_all() -> None:
    """In place, whatever the shapes."""
    mine = [torch.ones(2, 3), torch.zeros(4)]
    Workers(torch.device("cpu"), 0, 2, Other(3.0)).mean(mine)
    assert [tensor.unique().tolist() for tensor in mine] == [[2.0], [1.5]]
    Workers(torch.device("cpu")).mean(mine)
    assert mine[0].unique().tolist() == [2.0]


def test_text_is_shared_out(tiny_folder: Path, text: Path, tmp_path: Path) -> None:
    """Nothing is read twice, and all have as many steps."""
    base: FrozenBase = open_base(tiny_folder, "float32", "cpu")

    def chunks(rank: int) -> list[list[Any]]:
        together = Workers(torch.device("cpu"), rank, 3, Other(0.0))
        recipe = Recipe(minutes=1, rank=2, chain=8, answers=2)
        made = TrainingRun(base, [text], [text], tmp_path / str(rank), recipe, False, together)
        return [[tuple(answer.tokens) for answer in chunk] for chunk in made._chunks()]

    found = [chunks(rank) for rank in range(3)]
    assert len({len(part) for part in found}) == 1
    read = [answer for part in found for chunk in part for answer in chunk]
    assert len(set(read)) == len(read) == 36


def test_who_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate says which device and which number; without it this process is alone."""
    state = pytest.importorskip("accelerate.state")
    for name in ("ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    assert workers("cpu") == Workers(torch.device("cpu"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    try:
        found = workers()
        assert (found.device.type, found.rank, found.count) == ("cpu", 0, 1)
        assert found.accelerator is not None
        found.wait()
    finally:
        state.AcceleratorState._reset_state(reset_partial_state=True)
