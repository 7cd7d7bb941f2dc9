"""Linear layers with int8 weights and activations, one scale per output and one per row.

Integer sums are exact in any order, and a row's scale comes from that row alone, so the
result is row-invariant by itself: no tiles, no padding. torch's integer product gives the
bare sums, which are scaled afterwards; oneDNN's quantised linear layer would take one scale
for all rows, and on some processors it has nothing better than its reference loops, which
are a thousand times slower. Both implementations agree to the last bit.

Accuracy: every output is within :func:`error_bound` of the exact product, and a row within
1.3 % of its norm where inputs and weights are normally distributed. What is decoded with
such layers is lossless with respect to the quantised model only.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.dispatch import Implementation
from dllm_kernels.dispatch import Shapes
from dllm_kernels.dispatch import register
from dllm_kernels.private_torch import MISSING
from dllm_kernels.private_torch import int8_product

#: Its name in the dispatch; what it gives is called with an :class:`Int8Weight` and then with rows.
KERNEL = "int8_linear"
#: Largest level; -128 is not used, so that levels are symmetric.
LEVELS = 127


@dataclass(frozen=True, slots=True)
class Int8Weight:
    """A quantised linear layer.

    :param values: int8 [out, in].
    :param scale: float32 [out]; values * scale is the weight.
    :param bias: float32 [out].
    """

    values: Tensor
    scale: Tensor
    bias: Tensor | None = None


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Levels int8 [N, in] and scales float32 [N] of x [N, in]; the largest of each row becomes 127."""
    wide = x.float()
    # A row of zeros has levels of zero under any scale but zero.
    scale = (wide.abs().amax(-1) / LEVELS).clamp_(min=torch.finfo(torch.float32).tiny)
    levels = (wide / scale[:, None]).round_().clamp_(-LEVELS, LEVELS)
    return levels.to(torch.int8), scale


def quantise_weight(weight: Tensor, bias: Tensor | None = None) -> Int8Weight:
    """Quantise a weight [out, in], per output.

    :raises ValueError: if a number of it is not finite.
    """
    if not bool(weight.isfinite().all()):
        raise ValueError(f"weight {tuple(weight.shape)} holds numbers that are not finite; int8 cannot hold them")
    values, scale = quantise_rows(weight)
    return Int8Weight(values, scale, None if bias is None else bias.float())


def error_bound(x: Tensor, weight: Tensor) -> Tensor:
    """How far an output may be from the exact product, float64 [N, out], roundings of float32 aside.

    Every level is at most half a scale off: |x - x'| <= s / 2 and |w - w'| <= t / 2, so the
    sum is off by at most t / 2 * sum |x| + s / 2 * sum |w| + in * s * t / 4.
    """
    row = quantise_rows(x)[1].double()[:, None]
    column = quantise_rows(weight)[1].double()[None, :]
    rows, columns = x.double().abs().sum(-1)[:, None], weight.double().abs().sum(-1)[None, :]
    return column / 2 * rows + row / 2 * columns + x.shape[1] * row * column / 4


class ReferenceLinear:
    """Sums in float64, which holds them exactly. Runs everywhere."""

    def __init__(self, weight: Int8Weight) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [N, in] to [N, out], in the dtype of x."""
        levels, scale = quantise_rows(x)
        sums = torch.matmul(levels.double(), self._weight.values.double().T).float()
        return _scaled(sums, scale, self._weight.scale, self._weight.bias).to(x.dtype)


class IntegerLinear:
    """torch's integer product."""

    def __init__(self, weight: Int8Weight) -> None:
        self._values = weight.values.T
        self._scale = weight.scale
        self._bias = weight.bias

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [N, in] to [N, out], in the dtype of x."""
        levels, scale = quantise_rows(x)
        sums = int8_product(levels, self._values).float()
        return _scaled(sums, scale, self._scale, self._bias).to(x.dtype)


def _scaled(sums: Tensor, row: Tensor, column: Tensor, bias: Tensor | None) -> Tensor:
    """Sums float32 [N, out], overwritten."""
    scaled = sums.mul_(column).mul_(row[:, None])
    return scaled if bias is None else scaled.add_(bias)


@cache
def _fault() -> str | None:
    """Why torch's integer product cannot be used here; None if it sums exactly.

    It is an internal operator, and a processor without VNNI may add pairs of products in
    16 bits, which saturate: so it is tried, not trusted.
    """
    levels = torch.full((3, 576), LEVELS, dtype=torch.int8)
    values = torch.tensor([LEVELS, -LEVELS, 1, -128], dtype=torch.int8).repeat(16)[:, None].repeat(1, 576)
    levels[1] = -LEVELS
    levels[2, ::2] = -1
    try:
        found = int8_product(levels, values.T)
    except MISSING as error:
        return f"needs torch._int_mm, which this torch does not run ({error})"
    exact = levels.double() @ values.double().T
    return None if torch.equal(found.double(), exact) else "needs a processor whose int8 products do not saturate"


def _load_reference() -> Any:
    return ReferenceLinear


def _load_integer() -> Any:
    return IntegerLinear


def _takes_all(_device: torch.device, _dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return None


def _integer_refuses(device: torch.device, _dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return f"runs on the cpu only, not on {device.type}" if device.type != "cpu" else _fault()


register(Implementation(KERNEL, "reference", 0, _load_reference, _takes_all))
register(Implementation(KERNEL, "cpu", 10, _load_integer, _integer_refuses))
