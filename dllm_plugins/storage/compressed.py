"""compressed-tensors: FP8 and int8 as they are, and integers of few bits packed into words of 32.

The arithmetic and the packing are those of compressed-tensors 0.20.1 (`compressors/naive_quantized`,
`compressors/pack_quantized`), whose own decompression these weights were compared with.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.storage.bits import unpack
from dllm_plugins.storage.lazy import LazyWeight
from dllm_plugins.storage.scaled import FLOAT8
from dllm_plugins.storage.scaled import Block
from dllm_plugins.storage.scaled import Tensors
from dllm_plugins.storage.scaled import blocks
from dllm_plugins.storage.scaled import of_numbers
from dllm_plugins.storage.scaled import scaled
from dllm_plugins.storage.settings import Storage

FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "mixed-precision", "dense")
#: Widths whose words every version packs alike.
PACKED_BITS = (2, 4, 8)
PACKED = "_packed"


def read_compressed(tensors: Tensors, storage: Storage) -> Tensors:
    """Plain weights by compressed-tensors' names.

    :raises CheckpointError: for formats, transforms and orders that are not read.
    """
    _check(storage)
    found: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith("_g_idx"):
            raise storage.refusal(f"{name} puts columns in another order")
        if name.endswith(PACKED):
            weight = name.removesuffix(PACKED)
            found[weight] = _unpacked(weight, tensor, tensors, storage)
        elif not any(name.removesuffix(end) + PACKED in tensors for end in ("_scale", "_zero_point", "_shape")):
            found[name] = tensor
    return scaled(found, storage, (*FLOAT8, torch.int8), lambda weight, scale: _block(weight, scale, storage)[0])


def _check(storage: Storage) -> None:
    settings = storage.settings
    formats = {settings.get("format"), *(group.get("format") for group in _groups(storage))} - {None}
    if formats - set(FORMATS) or not formats:
        raise storage.refusal(f"format {sorted(map(str, formats)) or None} is not read, only {', '.join(FORMATS)} are")
    if settings.get("quantization_status") != "compressed":
        raise storage.refusal(f"quantization_status={settings.get('quantization_status')!r} is not 'compressed'")
    sparsity = settings.get("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        raise storage.refusal(f"sparsity_config says format={sparsity['format']!r}")
    if (settings.get("transform_config") or {}).get("config_groups"):
        raise storage.refusal("transform_config turns activations, too")


def _groups(storage: Storage) -> list[Mapping[str, Any]]:
    found = storage.settings.get("config_groups")
    groups = list(found.values()) if isinstance(found, dict) else []
    if not groups or not all(isinstance(group, dict) for group in groups):
        raise storage.refusal(f"config_groups={found!r}")
    return groups


def _block(weight: Tensor, scale: Tensor, storage: Storage) -> tuple[Block, int]:
    """Rows and columns that share a scale, and the width in bits, by the one scheme that fits.

    :raises CheckpointError: if none does, or several that mean different weights.
    """
    kind = "float" if weight.dtype.is_floating_point else "int"
    fitting = set()
    for group in _groups(storage):
        args = group.get("weights") or {}
        block = _fits(weight, scale, args) if args.get("type", "int") == kind else None
        if block is not None:
            fitting.add((block, int(args.get("num_bits", 8))))
    if len(fitting) != 1:
        shapes = f"scales {tuple(scale.shape)} of {kind} weights {tuple(weight.shape)}"
        raise storage.refusal(f"{shapes} fit {'several' if fitting else 'none'} of its config_groups")
    return fitting.pop()


def _fits(weight: Tensor, scale: Tensor, args: Mapping[str, Any]) -> Block | None:
    rows, columns = weight.shape[-2:]
    size = args.get("group_size") or columns
    structure = args.get("block_structure") or (1, 1)
    found: dict[str, Block] = {
        "tensor": (rows, columns),
        "channel": (1, columns),
        "group": (1, size),
        "block": (structure[0], structure[1]),
    }
    block = found.get(str(args.get("strategy")))
    if block is None or weight.ndim != 2 or (args["strategy"] == "group" and columns % size):
        return None
    grid = blocks(weight, block)
    # One scale a row, or one in all, may stand in fewer dimensions.
    shapes: list[tuple[int, ...]] = [grid, *([(grid[0],)] if grid[1] == 1 else []), *([()] if grid == (1, 1) else [])]
    return block if tuple(scale.shape) in shapes else None


def _unpacked(name: str, words: Tensor, tensors: Tensors, storage: Storage) -> LazyWeight:
    """A weight of few bits, packed along its rows; its zero points are packed along the columns."""
    scale, shape = tensors.get(f"{name}_scale"), tensors.get(f"{name}_shape")
    if scale is None or shape is None or shape.numel() != 2 or words.dtype != torch.int32:
        raise storage.refusal(f"{name} is packed as {words.dtype} without its scale or shape")
    rows, columns = map(int, shape.tolist())
    like = torch.empty((rows, columns), dtype=torch.int8, device="meta")
    block, bits = _block(like, scale, storage)
    if bits not in PACKED_BITS or tuple(words.shape) != (rows, -(-columns * bits // 32)):
        raise storage.refusal(f"{name} has {bits} bits in words {tuple(words.shape)} for {(rows, columns)}")
    half, zero = 1 << (bits - 1), tensors.get(f"{name}_zero_point")
    if zero is not None:
        zero = unpack(zero.T.contiguous(), bits).T[: blocks(like, block)[0]] - half
    grid = scale.float().reshape(blocks(like, block))
    return of_numbers(
        like.shape, lambda *rows: unpack(words[slice(*rows)], bits)[:, :columns] - half, grid, block, zero
    )
