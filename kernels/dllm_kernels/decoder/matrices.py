"""A linear layer's weight in the form it is multiplied in: plain, packed for oneDNN, or int8.

oneDNN orders a plain weight anew in every product, which costs as much again; packed
once, it is read at the memory's speed. Its operators are internal to torch, so whether
they run is tried, and plain weights serve where they do not.
"""

from collections.abc import Callable
from functools import cache
from typing import Literal
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels import int8
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import kernel

#: Rows oneDNN packs for; products of other numbers of rows run on the same packed weight.
PACKED_FOR = 16

Form = Literal["plain", "packed", "int8"]


class Matrix(Protocol):
    """A weight [out, in] with its bias [out], if it has one."""

    outs: int
    #: What decides which of a library's kernels multiplies it.
    key: tuple[object, ...]

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Rows [N, in] to [N, out]; `out` may be used for them or not."""


class PlainMatrix:
    """As torch multiplies it; shares the weight's memory."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outs = len(weight)
        self.key: tuple[object, ...] = ("plain", weight.shape, weight.dtype, bias is None)
        self._turned = weight.t()
        self._bias = bias

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        if self._bias is None:
            return torch.mm(x, self._turned, out=out)
        return torch.addmm(self._bias, x, self._turned, out=out)


class PackedMatrix:
    """In oneDNN's own order, in memory of its own."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outs = len(weight)
        self.key: tuple[object, ...] = ("packed", weight.shape, weight.dtype, bias is None)
        self._packed = _pack(weight)
        self._bias = bias

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        return _multiply(x, self._packed, self._bias)


class Int8Matrix:
    """int8 weights and activations, see :mod:`dllm_kernels.int8`; about half the memory of bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outs = len(weight)
        self.key: tuple[object, ...] = ("int8", weight.shape, weight.dtype, bias is None)
        sizes = {"in": weight.shape[1], "out": weight.shape[0]}
        linear = kernel(int8.KERNEL, weight.device, weight.dtype, sizes)
        self._linear: Callable[[Tensor], Tensor] = linear(int8.quantise_weight(weight, bias))

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        return self._linear(x)


def matrix(form: Form, weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """Put a weight [out, in] into a form.

    :raises KernelError: for numbers that int8 cannot hold.
    """
    if form == "plain":
        return PlainMatrix(weight, bias)
    if form == "packed":
        return PackedMatrix(weight, bias)
    try:
        return Int8Matrix(weight, bias)
    except ValueError as error:
        raise KernelError(f"{error}; leave int8 out") from error


def _pack(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR)
    return packed


def _multiply(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product


@cache
def packing_fault(dtype: torch.dtype) -> str | None:
    """Why weights cannot be packed here; None if they can, and the product is right."""
    noise = torch.Generator().manual_seed(0)
    weight, x, bias = (torch.randn(size, generator=noise).to(dtype) for size in ((48, 40), (16, 40), (48,)))
    try:
        with torch.inference_mode():
            found = _multiply(x, _pack(weight), bias).float()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return f"needs oneDNN's packed linear, which this torch does not run in {dtype} ({error})"
    exact = x.double() @ weight.double().T + bias.double()
    close = torch.allclose(found.double(), exact, atol=8 * torch.finfo(dtype).eps * float(exact.abs().max()), rtol=0)
    return None if close else f"needs oneDNN's packed linear, which gives wrong products in {dtype} here"
