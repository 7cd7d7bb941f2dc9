"""Inputs of the unmasking head and how close its answers must be."""

import pytest
import torch
from torch import Tensor

from dllm_kernels.dispatch import KernelError
from dllm_kernels.head import PackedHead
from dllm_kernels.head import Unmasked
from dllm_kernels.head import pack_head
from dllm_kernels.head.packed import BLOCK

#: How far apart probability, entropy and margin may be. In bfloat16 a logit summed in
#: another order may round to its neighbour, 2 ** -8 of its size away.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
DTYPES = list(TOLERANCE)


def draw_inputs(rows: int, vocabulary: int, width: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator) * 3 * width**-0.5
    return hidden.to(dtype), weight.to(dtype)


def draw_gumbel(rows: int, vocabulary: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -torch.log(-torch.log(torch.rand(rows, vocabulary, dtype=torch.float64, generator=generator)))


def exact(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states and a weight whose product is these logits [N, V] to the last bit."""
    return torch.eye(len(logits), dtype=logits.dtype), logits.T.contiguous()


def assert_close(found: Unmasked, expected: Unmasked, tolerance: float) -> None:
    for name in ("probability", "entropy", "margin"):
        got, wanted = getattr(found, name), getattr(expected, name)
        scale = 1.0 + (wanted.abs() if name == "entropy" else 0.0)
        assert got.dtype == torch.float32
        assert torch.equal(got.isnan(), wanted.isnan()), name
        assert bool(((got - wanted).abs() <= tolerance * scale)[~wanted.isnan()].all()), name


def hard_logits(dtype: torch.dtype) -> dict[str, Tensor]:
    """Logits whose product is exact, so that tokens must be equal everywhere."""
    size = 2 * BLOCK + 300
    generator = torch.Generator().manual_seed(3)
    wild = torch.randn(20, size, generator=generator) * 1e4
    whole = torch.randint(-3, 4, (20, size), generator=generator).float()
    late = torch.zeros(18, size)
    late[:, [BLOCK - 1, BLOCK, size - 1]] = 5.0
    two = torch.full((4, size), -1e4)
    two[:, -1], two[:, -2] = 1e4, 9.9e3
    return {
        name: logits.to(dtype)
        for name, logits in {
            "wild": wild,
            "ties": whole,
            "ties across blocks": late,
            "apart": two,
            "equal": torch.zeros(5, size),
            "minus zero": torch.tensor([[-0.0, 0.0, -0.0], [-1.0, -0.0, 0.0]]),
        }.items()
    }


def packed_or_skip(weight: Tensor) -> PackedHead:
    """The weight packed; a test that needs it is skipped where oneDNN cannot do it."""
    try:
        return pack_head(weight)
    except KernelError as error:
        pytest.skip(str(error))
