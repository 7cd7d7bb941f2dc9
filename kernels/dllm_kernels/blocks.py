"""Matrices as GGUF files hold them: blocks of 32 small numbers with a scale in common, and in Q4_1 a least value.

What a block says is exact: its weights are those that dequantising to bfloat16 gives, so that a product with
blocks has the bits of the product with the dequantised matrix, while less than half of its memory is read.
Format: ggml-org/ggml ggml-common.h (block_q4_0, block_q4_1, block_q8_0).
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

#: Numbers of a block.
IN_BLOCK = 32
#: Of a float16's bits: all of them are ones where it is no finite number.
_EXPONENT = np.uint16(0x7C00)


class Kind(IntEnum):
    """Types of blocks that are computed here, by ggml's numbers."""

    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return {Kind.Q4_0: 18, Kind.Q4_1: 20, Kind.Q8_0: 34}[self]


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix [out, in] in blocks; the last of its rows may be plain numbers.

    :param kind: of its blocks.
    :param data: uint8 [rows in blocks, in / 32 * bytes of a block], on the CPU.
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
        plain = self.plain
        if plain is not None and (plain.dtype != self.dtype or tuple(plain.shape[1:]) != tuple(self.shape[1:])):
            raise KernelError(f"rows behind blocks are [n, {self.shape[1]}] {self.dtype}, not {list(plain.shape)}")

    @property
    def shape(self) -> torch.Size:
        """(out, in)."""
        further = 0 if self.plain is None else len(self.plain)
        return torch.Size((len(self.data) + further, self.data.shape[1] // self.kind.size * IN_BLOCK))

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
        heads = halves[:, :, : 1 + (self.kind is Kind.Q4_1)]
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
        blocks = data.reshape(-1, self.kind.size)
        scale = _halves(blocks[:, :2])
        if self.kind is Kind.Q8_0:
            found = blocks[:, 2:].contiguous().view(torch.int8).float() * scale
        else:
            begin = self.kind.size - IN_BLOCK // 2
            # Two numbers a byte: the lower halves are the block's first ones.
            numbers = torch.cat([blocks[:, begin:] & 15, blocks[:, begin:] >> 4], dim=1).float()
            found = (numbers - 8) * scale if self.kind is Kind.Q4_0 else numbers * scale + _halves(blocks[:, 2:4])
        return found.view(*data.shape[:-1], -1)


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
    """Matrices of one kind one below the other.

    :raises KernelError: for matrices in blocks and others together, or of several kinds.
    """
    if len(parts) == 1:
        return parts[0]
    tensors: list[Tensor] = [part for part in parts if isinstance(part, Tensor)]
    blocks = [part for part in parts if isinstance(part, Blocks)]
    if not blocks:
        return cast(M, torch.cat(tensors))
    if tensors or len({(part.kind, part.dtype) for part in blocks}) > 1:
        raise KernelError(f"matrices of {', '.join(map(form_of, parts))} cannot be one; dequantise them")
    if any(part.plain is not None for part in blocks):
        raise KernelError("matrices with plain rows behind their blocks cannot be one; dequantise them")
    return cast(M, replace(blocks[0], data=_joined([part.data for part in blocks])))


def _joined(parts: list[Tensor]) -> Tensor:
    """Matrices of bytes one below the other: the memory they lie in, if it holds them so, such as a mapped file."""
    first, at, rows = parts[0], parts[0].storage_offset(), 0
    memory = first.untyped_storage().data_ptr()
    for part in parts:
        if not part.is_contiguous() or part.untyped_storage().data_ptr() != memory or part.storage_offset() != at:
            return torch.from_numpy(np.concatenate([part.numpy() for part in parts]))
        at, rows = at + part.numel(), rows + len(part)
    return first.as_strided((rows, first.shape[1]), first.stride())


def _halves(raw: Tensor) -> Tensor:
    """Float32 [n, 1] of the bytes [n, 2] of float16 numbers."""
    return raw.contiguous().view(torch.float16).float()
