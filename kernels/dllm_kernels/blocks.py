"""Matrices as GGUF files hold them: blocks of small numbers with a scale in common, and in some a least value.

What a block says is exact: its weights are those that dequantising to bfloat16 gives, so that a product with
blocks has the bits of the product with the dequantised matrix, while less than half of its memory is read.
"""

from dataclasses import dataclass
from dataclasses import replace
from enum import IntEnum
from typing import TypeVar
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dllm_kernels.dispatch import KernelError
from dllm_kernels.unpacking import UNPACK

#: Numbers of a small block, and of a large one.
IN_BLOCK, IN_LARGE = 32, 256
#: Of a float16's bits: all of them are ones where it is no finite number.
_EXPONENT = np.uint16(0x7C00)


class Kind(IntEnum):
    """Types of blocks that are computed here, by ggml's numbers."""

    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14

    @property
    def numbers(self) -> int:
        """Numbers of a block; rows hold whole blocks."""
        return IN_LARGE if self >= Kind.Q4_K else IN_BLOCK

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return _SIZES[self]

    @property
    def scales(self) -> slice:
        """Which bytes of a block are float16 numbers: its scale, and its least value if it has one."""
        if self is Kind.Q6_K:
            return slice(208, 210)
        return slice(0, 2 if self in (Kind.Q4_0, Kind.Q5_0, Kind.Q8_0) else 4)


#: Kinds whose products with rows in int8 are computed, too.
CODED = (Kind.Q4_0, Kind.Q4_1, Kind.Q8_0)
_SIZES = dict(zip(Kind, (18, 20, 22, 24, 34, 144, 176, 210), strict=True))


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix [out, in] in blocks; the last of its rows may be plain numbers.

    :param kind: of its blocks.
    :param data: uint8 [rows in blocks, in / numbers of a block * bytes of a block], on the CPU.
    :param dtype: what it is multiplied in, float32 or bfloat16; its weights have bfloat16's digits in both.
    :param plain: [further rows, in] in `dtype`, behind the rows in blocks.
    :param coded: whether what it is multiplied with is rounded to int8 first, block by block; see
        :mod:`dllm_kernels.coded`. The matrix itself is then not rounded to bfloat16.
    :raises KernelError: for data of another shape or dtype.
    """

    kind: Kind
    data: Tensor
    dtype: torch.dtype
    plain: Tensor | None = None
    coded: bool = False

    def __post_init__(self) -> None:
        whole = self.data.dim() == 2 and self.data.dtype == torch.uint8 and self.data.shape[1] % self.kind.size == 0
        if not whole or self.data.device.type != "cpu":
            raise KernelError(
                f"blocks of {self.kind.name} are uint8 [rows, n * {self.kind.size}] on the cpu, not "
                f"{list(self.data.shape)} {self.data.dtype} on {self.data.device}"
            )
        if self.coded and self.kind not in CODED:
            known = ", ".join(kind.name for kind in CODED)
            raise KernelError(f"rows in int8 meet blocks of {known} only, not of {self.kind.name}")
        plain = self.plain
        if plain is not None and (plain.dtype != self.dtype or tuple(plain.shape[1:]) != tuple(self.shape[1:])):
            raise KernelError(f"rows behind blocks are [n, {self.shape[1]}] {self.dtype}, not {list(plain.shape)}")

    @property
    def shape(self) -> torch.Size:
        """(out, in)."""
        further = 0 if self.plain is None else len(self.plain)
        return torch.Size((len(self.data) + further, self.data.shape[1] // self.kind.size * self.kind.numbers))

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return self.data.device

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    def take(self, rows: Tensor) -> "Blocks":
        """Rows in blocks of given numbers, int64 [n], as a matrix of their own."""
        return replace(self, data=torch.from_numpy(self.data.numpy()[rows.numpy()]), plain=None)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows of given numbers, int64 of any shape: one dimension more, in `dtype`.

        :raises IndexError: for a number that no row has.
        """
        if self.plain is None:
            return self._dequantised(self.data[rows])
        coded = rows < len(self.data)
        found = self._dequantised(self.data[rows.where(coded, torch.zeros_like(rows))])
        return found.where(coded[..., None], self.plain[(rows - len(self.data)).clamp(min=0)])

    def to(self, where: torch.device | torch.dtype) -> "Weight":
        """The same to be multiplied in another dtype; on a device that is no CPU, the dequantised matrix.

        :raises KernelError: for another device, where rows are rounded first.
        """
        if isinstance(where, torch.device):
            if self.coded and where.type != "cpu":
                raise KernelError(f"rows are rounded to int8 on the cpu only, not on {where}")
            return self if where.type == "cpu" else self.dequantised().to(where)
        return replace(self, dtype=where, plain=None if self.plain is None else self.plain.to(where))

    def isfinite(self) -> Tensor:
        """Whether each row's numbers are finite, bool [out in blocks]."""
        # In numpy, whose one thread is done before torch's have met as often as that takes.
        halves = self.data.contiguous().numpy().view(np.uint16).reshape(len(self.data), -1, self.kind.size // 2)
        heads = halves[:, :, self.kind.scales.start // 2 : self.kind.scales.stop // 2]
        return torch.from_numpy(((heads & _EXPONENT) != _EXPONENT).all((1, 2)))

    def dequantised(self) -> Tensor:
        """The matrix [out, in] in `dtype`."""
        found = self._dequantised(self.data)
        return found if self.plain is None else torch.cat([found, self.plain])

    def exact(self) -> Tensor:
        """Rows in blocks [rows, in] in float32, not rounded to bfloat16."""
        return self._numbers(self.data)

    def _dequantised(self, data: Tensor) -> Tensor:
        return self._numbers(data).to(torch.bfloat16).to(self.dtype)

    def _numbers(self, data: Tensor) -> Tensor:
        return UNPACK[self.kind.name](data.reshape(-1, self.kind.size)).view(*data.shape[:-1], -1)


#: A matrix of a decoder's weights.
Weight = Tensor | Blocks


def plain(weight: Weight) -> Tensor:
    """The matrix as a tensor: itself, or dequantised."""
    return weight.dequantised() if isinstance(weight, Blocks) else weight


M = TypeVar("M", bound=Weight)


def form_of(weight: Weight) -> str:
    """What is multiplied: "Q4_1", or "bfloat16"."""
    return weight.kind.name if isinstance(weight, Blocks) else str(weight.dtype).removeprefix("torch.")


def rows_of(weight: Weight, rows: Tensor) -> Weight:
    """Rows of given numbers, int64 [n], as a matrix of their own."""
    return weight.take(rows) if isinstance(weight, Blocks) else weight[rows]


def below(parts: list[M]) -> M:
    """Matrices of one kind one below the other; without a copy where they lie so already.

    :raises KernelError: for matrices in blocks and others together, or of several kinds.
    """
    if len(parts) == 1:
        return parts[0]
    tensors: list[Tensor] = [part for part in parts if isinstance(part, Tensor)]
    blocks = [part for part in parts if isinstance(part, Blocks)]
    if not blocks:
        return cast(M, _stacked(tensors))
    if tensors or len({(part.kind, part.dtype) for part in blocks}) > 1:
        raise KernelError(f"matrices of {', '.join(map(form_of, parts))} cannot be one; dequantise them")
    if any(part.plain is not None for part in blocks):
        raise KernelError("matrices with plain rows behind their blocks cannot be one; dequantise them")
    return cast(M, replace(blocks[0], data=_stacked([part.data for part in blocks])))


def _stacked(parts: list[Tensor]) -> Tensor:
    """Rows below rows: the memory they lie in, if it holds them so, such as a mapped file."""
    first, end = parts[0], parts[0].data_ptr()
    together = len({(part.untyped_storage().data_ptr(), part.dtype, part.shape[1:]) for part in parts}) == 1
    for part in parts:
        together = together and part.is_contiguous() and part.data_ptr() == end
        end += part.nbytes
    if together:
        return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())
    # Bytes in numpy, whose one thread is done before torch's have met.
    bytes_ = first.dtype == torch.uint8
    return torch.from_numpy(np.concatenate([part.numpy() for part in parts])) if bytes_ else torch.cat(parts)
