"""Tensors of a GGUF file in torch, without a copy where torch knows their type."""

from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.blocks import Weight
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import TensorInfo

_FLOATS = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
#: Types of tensors that the block decoder multiplies as they lie in the file.
BLOCKS = {GGMLQuantizationType(int(kind)): kind for kind in Kind}
#: All that it takes.
TYPES = (*_FLOATS, *BLOCKS)


def read_tensor(header: Header, info: TensorInfo) -> Tensor:
    """A tensor of a float type as it is, mapped from the file; quantised ones as bfloat16."""
    dtype = _FLOATS.get(info.type)
    data = _mapped(header, info)
    if dtype is not None:
        return torch.from_numpy(data).view(dtype).reshape(info.shape)
    return torch.from_numpy(gguf.quants.dequantize(data.reshape(info.shape[0], -1), info.type)).to(torch.bfloat16)


def map_file(header: Header) -> Tensor:
    """The whole file, uint8 [bytes]; what is made of it keeps it mapped, and parts of it are no copies."""
    return torch.from_numpy(_map(header, 0, None))


def mapped_weight(file: Tensor, info: TensorInfo, dtype: torch.dtype) -> Weight:
    """A tensor of one of :data:`TYPES` as it lies in a mapped file.

    :param file: of :func:`map_file`.
    :param dtype: what blocks are multiplied in.
    """
    raw = file[info.offset : info.offset + info.size]
    if info.type in BLOCKS:
        return Blocks(BLOCKS[info.type], raw.view(info.shape[0], -1), dtype)
    kind = _FLOATS[info.type]
    # A file may say that its tensors begin anywhere.
    aligned = raw if info.offset % kind.itemsize == 0 else raw.clone()
    return aligned.view(kind).view(info.shape)


def read_rows(header: Header, info: TensorInfo, rows: Sequence[int]) -> "NDArray[np.float32]":
    """Rows of a matrix as llama.cpp looks them up, float32 [rows, width]."""
    data = _mapped(header, info).reshape(info.shape[0], -1)[list(rows)]
    found: NDArray[np.float32] = gguf.quants.dequantize(data, info.type)
    return found


def _mapped(header: Header, info: TensorInfo) -> "NDArray[Any]":
    return _map(header, info.offset, (info.size,))


def _map(header: Header, offset: int, shape: tuple[int] | None) -> "NDArray[Any]":
    # Copy on write: torch wants memory it may write to; nobody does.
    return np.memmap(header.path, np.uint8, "c", offset, shape)
