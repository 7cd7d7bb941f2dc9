"""Weights in the dtype that is computed in: the same however many numbers are taken at a time, and finite."""

import pytest
import torch
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.storage import tensors as storage
from dllm_plugins.storage.tensors import converted

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few numbers at a time, so that small tensors are whole, in pieces, and large."""
    monkeypatch.setattr(storage, "_PIECE", 8)
    monkeypatch.setattr(storage, "_SMALL", 64)


def drawn(*shape: int, dtype: torch.dtype) -> Tensor:
    """Numbers of a fixed seed."""
    return (torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3).to(dtype)


@pytest.mark.parametrize("shape", [(0,), (), (1,), (8,), (9,), (8, 8), (5, 13)], ids=str)
@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("wanted", DTYPES)
def test_numbers_are_those_of_torch(shape: tuple[int, ...], stored: torch.dtype, wanted: torch.dtype) -> None:
    """Of every size, and of a matrix that lies on its side, too."""
    for tensor in (drawn(*shape, dtype=stored), drawn(7, 6, dtype=stored).T, drawn(4, 4, dtype=stored)[:, ::2]):
        found = converted({"a": tensor}, wanted, "here", "mend it")["a"]
        assert found.dtype == wanted
        assert torch.equal(found, tensor.to(wanted))


@pytest.mark.parametrize("size", [1, 8, 9, 64, 65, 200])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_found_anywhere(size: int, bad: float) -> None:
    """First, last, and at the ends of what is looked at together; also what only becomes infinite there."""
    for place in {0, size // 2, min(7, size - 1), min(8, size - 1), size - 1}:
        tensor = drawn(size, dtype=torch.float32)
        tensor[place] = bad
        with pytest.raises(CheckpointError, match=r"here: b holds .* not finite in torch\.bfloat16; mend it"):
            converted({"a": torch.ones(3), "b": tensor}, torch.bfloat16, "here", "mend it")
        tensor[place] = 1e30
        assert converted({"b": tensor}, torch.float32, "here", "mend it")
        with pytest.raises(CheckpointError, match=r"not finite in torch\.float16"):
            converted({"b": tensor}, torch.float16, "here", "mend it")
