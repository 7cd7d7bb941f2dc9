"""Writing a GGUF file tensor by tensor."""

import os
from collections.abc import Iterable
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf import GGUFValueType
from numpy.typing import NDArray
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.progress import Progress
from dllm_plugins.gguf.architectures import Metadata
from dllm_plugins.gguf.names import TensorEntry

#: What a tensor can be written as without llama.cpp's help.
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SCALARS = {
    bool: GGUFValueType.BOOL,
    int: GGUFValueType.UINT32,
    float: GGUFValueType.FLOAT32,
    str: GGUFValueType.STRING,
}
_MEMBERS = _SCALARS | {int: GGUFValueType.INT32}


def write(path: Path, metadata: Metadata, entries: Sequence[TensorEntry], kind: str, progress: Progress) -> None:
    """Write a whole file; one tensor is in memory at a time.

    :param metadata: numbers, strings, bools, or lists of one kind of these.
    :param kind: the type of matrices, one of :data:`FLOATS`; vectors and routers are float32.
    :raises CheckpointError: for a weight that is not finite in that type.
    """
    writer = gguf.GGUFWriter(path, str(metadata["general.architecture"]))
    try:
        for key, value in metadata.items():
            if key != "general.architecture":
                _add(writer, key, value)
        for entry in entries:
            dtype = GGMLQuantizationType[_kind(entry, kind)]
            writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), size_of(entry, kind), dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done, total = 0, size(entries, kind)
        for entry in entries:
            progress("write", done, total)
            writer.write_tensor_data(_bytes(entry, _kind(entry, kind)))
            done += size_of(entry, kind)
        progress("write", done, total)
        synced(writer)
    finally:
        writer.close()


def synced(writer: gguf.GGUFWriter) -> None:
    """What was written is on the disk afterwards."""
    for file in writer.fout or ():
        file.flush()
        os.fsync(file.fileno())


def size(entries: Iterable[TensorEntry], kind: str) -> int:
    """Bytes of all tensors."""
    return sum(size_of(entry, kind) for entry in entries)


def size_of(entry: TensorEntry, kind: str) -> int:
    """Bytes of one tensor."""
    return prod(entry.shape) * FLOATS[_kind(entry, kind)].itemsize


def _kind(entry: TensorEntry, kind: str) -> str:
    return "F32" if entry.exact else kind


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_key_value(key, value, GGUFValueType.ARRAY, _MEMBERS[type(value[0])])
    else:
        writer.add_key_value(key, value, _SCALARS[type(value)])


def _bytes(entry: TensorEntry, kind: str) -> NDArray[Any]:
    """A tensor as the bytes of its type."""
    tensor: Tensor = entry.make().detach().to("cpu", FLOATS[kind]).contiguous()
    if tuple(tensor.shape) != entry.shape:
        raise CheckpointError(f"{entry.name} is {tuple(tensor.shape)}, where {entry.shape} was announced")
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"{entry.name} has weights that are not finite in {kind}; choose another type")
    return tensor.view(torch.uint8).reshape(-1).numpy() if kind == "BF16" else tensor.numpy()
