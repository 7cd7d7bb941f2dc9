"""Tensors of a GGUF file in torch, without a copy where torch knows their type."""

from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import TensorInfo

_FLOATS = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


def read_tensor(header: Header, info: TensorInfo) -> Tensor:
    """A tensor of a float type as it is, mapped from the file; quantised ones as bfloat16."""
    dtype = _FLOATS.get(info.type)
    data = _mapped(header, info)
    if dtype is not None:
        return torch.from_numpy(data).view(dtype).reshape(info.shape)
    return torch.from_numpy(gguf.quants.dequantize(data.reshape(info.shape[0], -1), info.type)).to(torch.bfloat16)


def read_rows(header: Header, info: TensorInfo, rows: Sequence[int]) -> "NDArray[np.float32]":
    """Rows of a matrix as llama.cpp looks them up, float32 [rows, width]."""
    data = _mapped(header, info).reshape(info.shape[0], -1)[list(rows)]
    found: NDArray[np.float32] = gguf.quants.dequantize(data, info.type)
    return found


def _mapped(header: Header, info: TensorInfo) -> "NDArray[Any]":
    # Copy on write: torch wants memory it may write to; nobody does.
    return np.memmap(header.path, np.uint8, "c", info.offset, (info.size,))
