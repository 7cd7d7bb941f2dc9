"""int8 linear layers: exact sums, a row alone as in any company, and how accurate they are."""

from collections.abc import Callable
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dllm_kernels import int8
from dllm_kernels.dispatch import explain
from dllm_kernels.dispatch import kernel
from dllm_kernels.int8 import KERNEL
from dllm_kernels.int8 import IntegerLinear
from dllm_kernels.int8 import ReferenceLinear
from dllm_kernels.int8 import error_bound
from dllm_kernels.int8 import quantise_rows
from dllm_kernels.int8 import quantise_weight

CPU = torch.device("cpu")
REFUSAL = int8._fault()
needs_integers = pytest.mark.skipif(REFUSAL is not None, reason=str(REFUSAL))


def draw_inputs(rows: int, outs: int, ins: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, ins, generator=generator) * torch.logspace(-3, 3, rows)[:, None]
    weight = torch.randn(outs, ins, generator=generator) * ins**-0.5
    return x.to(dtype), weight.to(dtype), torch.randn(outs, generator=generator)


@needs_integers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("rows", "outs", "ins"), [(1, 1, 1), (3, 17, 33), (16, 960, 576), (25, 576, 1536), (5, 64, 4097)]
)
def test_packed_equals_the_reference_bit_by_bit(rows: int, outs: int, ins: int, dtype: torch.dtype) -> None:
    x, weight, bias = draw_inputs(rows, outs, ins, dtype)
    for extra in (None, bias):
        layer = quantise_weight(weight, extra)
        found = IntegerLinear(layer)(x)
        assert found.dtype == dtype
        assert torch.equal(found, ReferenceLinear(layer)(x))


@needs_integers
def test_the_largest_sums_are_exact() -> None:
    """All levels at 127, more than float32 counts without rounding."""
    x = torch.ones(4, 4097)
    x[1], x[2, ::2], x[3, 7] = -1.0, -1.0, 0.5
    layer = quantise_weight(torch.ones(33, 4097))
    assert torch.equal(IntegerLinear(layer)(x), ReferenceLinear(layer)(x))


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@needs_integers
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("ins", [576, 1536])
def test_a_row_has_the_same_bits_in_any_company(ins: int, dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    x, weight, bias = draw_inputs(40, 577, ins, dtype)
    layer = IntegerLinear(quantise_weight(weight, bias))
    threads(1)
    whole = layer(x)
    for count in (1, 2):
        threads(count)
        for rows in (1, 2, 9, 16, 25):
            for start in (0, 7):
                assert torch.equal(layer(x[start : start + rows]), whole[start : start + rows])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_accuracy(dtype: torch.dtype) -> None:
    """Within the bound everywhere, and 1.3 % of the norm of every row, large or small."""
    x, weight, _ = draw_inputs(16, 960, 576, dtype)
    found = ReferenceLinear(quantise_weight(weight))(x.float())
    exact = x.double() @ weight.double().T
    off = (found.double() - exact).abs()
    assert bool((off <= error_bound(x, weight) + 1e-6 * exact.abs()).all())
    share = off.norm(dim=-1) / exact.norm(dim=-1)
    assert 1e-3 < float(share.max()) < 0.013


def test_zeros_and_extremes() -> None:
    """Rows of zeros, of the smallest and of the largest numbers stay what they are."""
    x = torch.zeros(4, 8)
    x[1], x[2], x[3, 0] = 1e-44, 3e38, 1e4
    levels, scale = quantise_rows(x)
    assert levels[0].tolist() == [0] * 8
    assert levels[2].tolist() == [127] * 8
    assert levels[3].tolist() == [127, *[0] * 7]
    assert bool(scale.isfinite().all() and (scale > 0).all())
    found = ReferenceLinear(quantise_weight(torch.eye(8)))(x)
    assert torch.allclose(found, x, rtol=1e-6, atol=1e-37)


def test_a_weight_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        quantise_weight(torch.tensor([[1.0, torch.inf]]))


def test_the_dispatch_takes_integer_products_only_where_they_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = IntegerLinear if REFUSAL is None else ReferenceLinear
    assert kernel(KERNEL, CPU, torch.bfloat16, {}) is wanted
    int8._fault.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: (a.int() @ b.int()).clamp(max=2**20))
    try:
        assert kernel(KERNEL, CPU, torch.bfloat16, {}) is ReferenceLinear
        assert "saturate" in explain(KERNEL, CPU, torch.bfloat16, {})
    finally:
        int8._fault.cache_clear()
