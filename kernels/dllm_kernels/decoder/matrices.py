"""A linear layer's weight in the form it is multiplied in: plain, packed for oneDNN, int8, or blocks."""

from collections.abc import Callable
from typing import Literal
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels import int8
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import plain
from dllm_kernels.coded import coded_product
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import kernel
from dllm_kernels.onednn import ROWS
from dllm_kernels.onednn import packing_fault
from dllm_kernels.private_torch import ordered_linear
from dllm_kernels.private_torch import ordered_weight

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
        self._rotated = weight.t()
        self._bias = bias

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        if self._bias is None:
            return torch.mm(x, self._rotated, out=out)
        return torch.addmm(self._bias, x, self._rotated, out=out)


class PackedMatrix:
    """In oneDNN's own order, in memory of its own; KernelError where torch cannot pack."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.outs = len(weight)
        if bias is not None and bias.shape != (self.outs,):
            raise KernelError(f"bias {tuple(bias.shape)} must be [{self.outs}]")
        self.key: tuple[object, ...] = ("packed", weight.shape, weight.dtype, bias is None)
        if fault := packing_fault(weight.dtype):
            raise KernelError(f"a packed matrix {fault}; use another form of the weights")
        self._packed = ordered_weight(weight, ROWS)
        self._bias = bias

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        return ordered_linear(x, self._packed, self._bias)


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


class CodedMatrix:
    """Blocks whose rows are coded, see :mod:`dllm_kernels.coded`; a reference, which dequantises each time."""

    def __init__(self, weight: Blocks, bias: Tensor | None) -> None:
        self.outs = len(weight)
        self.key: tuple[object, ...] = ("coded", weight.shape, weight.kind, bias is None)
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """See :class:`Matrix`."""
        found = coded_product(x, self._weight)
        return (found if self._bias is None else found + self._bias.float()).to(x.dtype)


def matrix(form: Form, weight: Weight, bias: Tensor | None = None) -> Matrix:
    """Put a weight [out, in] into a form; blocks are dequantised for it, unless their rows are coded.

    :raises KernelError: for numbers that int8 cannot hold.
    """
    if isinstance(weight, Blocks) and weight.coded:
        return CodedMatrix(weight, bias)
    weight = plain(weight)
    if form == "plain":
        return PlainMatrix(weight, bias)
    if form == "packed":
        return PackedMatrix(weight, bias)
    try:
        return Int8Matrix(weight, bias)
    except ValueError as error:
        raise KernelError(f"{error}; leave int8 out") from error
