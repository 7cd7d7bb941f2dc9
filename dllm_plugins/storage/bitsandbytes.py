"""Weights of bitsandbytes: eight bits with a scale a row, and four bits by a table (NF4, FP4).

The arithmetic is that of bitsandbytes 0.50.2 (`functional.py`: `int8_vectorwise_dequant`, `dequantize_4bit`),
with whose results these weights were compared.
"""

import json
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.storage.lazy import LazyWeight
from dllm_plugins.storage.lazy import in_steps
from dllm_plugins.storage.scaled import Tensors
from dllm_plugins.storage.scaled import unblocked
from dllm_plugins.storage.settings import Storage

#: What eight bits are parts of.
WHOLE = 127.0
STATE = ".quant_state.bitsandbytes__"
#: Tensors beside a weight of four bits.
TABLES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


def read_bitsandbytes(tensors: Tensors, storage: Storage) -> Tensors:
    """Plain weights by their own names.

    :raises CheckpointError: for weights whose scales are missing or do not fit.
    """
    states = {name.partition(STATE)[0]: name for name in tensors if STATE in name}
    found: Tensors = {}
    for name, tensor in tensors.items():
        module, _, last = name.rpartition(".")
        if last in ("SCB", "weight_format") or STATE in name or (last in TABLES and module in states):
            continue
        if name in states:
            found[name] = _four_bits(name, tensor, tensors, states[name], storage)
        elif last == "weight" and f"{module}.SCB" in tensors:
            found[name] = _eight_bits(module, tensor, tensors, storage)
        else:
            found[name] = tensor
    return found


def _eight_bits(module: str, weight: Tensor, tensors: Tensors, storage: Storage) -> LazyWeight:
    scale, form = tensors[f"{module}.SCB"], tensors.get(f"{module}.weight_format")
    if weight.dtype != torch.int8 or weight.ndim != 2 or scale.numel() != len(weight):
        raise storage.refusal(f"{module}.weight is {weight.dtype} {tuple(weight.shape)} with {scale.numel()} scales")
    if form is not None and int(form) != 0:
        raise storage.refusal(f"{module}.weight_format is {int(form)}, which is no order by rows")
    return unblocked(weight, scale.float().reshape(-1, 1) / WHOLE, (1, weight.shape[1]))


def _four_bits(name: str, packed: Tensor, tensors: Tensors, state_name: str, storage: Storage) -> LazyWeight:
    try:
        state = json.loads(bytes(tensors[state_name].tolist()))
        rows, columns = map(int, state["shape"])
        block, table = int(state["blocksize"]), tensors[f"{name}.quant_map"].float()
        peaks = _peaks(name, tensors, state)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise storage.refusal(f"{name} has no whole quant_state ({error!r})") from error
    values = packed.contiguous().view(torch.uint8).reshape(-1)
    if len(table) != 16 or block < 1 or len(peaks) != -(-rows * columns // block) or len(values) * 2 != rows * columns:
        raise storage.refusal(f"{name} is {len(values)} bytes in blocks of {block} for {(rows, columns)}")
    return LazyWeight((rows, columns), partial(_part, values, peaks, table, block, columns))


def _peaks(name: str, tensors: Tensors, state: dict[str, Any]) -> Tensor:
    """The largest size in every block, float32 [blocks]; these may be stored as eight bits themselves."""
    peaks = tensors[f"{name}.absmax"].reshape(-1)
    if f"{name}.nested_absmax" not in tensors:
        return peaks.float()
    nested, table = tensors[f"{name}.nested_absmax"].float(), tensors[f"{name}.nested_quant_map"].float()
    block = torch.arange(len(peaks)) // int(state["nested_blocksize"])
    return table[peaks.long()] * nested[block] + float(state["nested_offset"])


def _part(values: Tensor, peaks: Tensor, table: Tensor, block: int, columns: int, start: int, stop: int) -> Tensor:
    """Rows start to stop; the first of two numbers is in the upper half of a byte."""

    def fill(part: Tensor, first: int, last: int) -> None:
        low, high = first * columns, last * columns
        pairs = values[low // 2 : -(-high // 2)]
        numbers = torch.stack([pairs >> 4, pairs & 15], -1).reshape(-1)[low % 2 : low % 2 + high - low]
        part.copy_((table[numbers.int()] * peaks[torch.arange(low, high) // block]).reshape(-1, columns))

    return in_steps(columns, start, stop, fill)
