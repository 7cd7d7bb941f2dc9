"""Eight-bit weights beside their scales: FP8 of transformers, FBGEMM, ModelOpt and compressed-tensors; its int8.

A weight is its stored number, less the zero point where there is one, times the scale of its tensor,
row, group or block. What the same files say of activations, and of cached keys and values, is left out:
those are computed in the model's dtype.
"""

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from dllm_plugins.storage.lazy import LazyWeight
from dllm_plugins.storage.lazy import ReadRows
from dllm_plugins.storage.lazy import in_steps
from dllm_plugins.storage.settings import Storage

Tensors = dict[str, Tensor]
#: Rows and columns that share a scale.
Block = tuple[int, int]
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = ("_scale_inv", "_scale")
ZEROS = "_zero_point"
#: Scales of what is not stored: activations, keys and values, queries.
UNUSED = (
    *(".activation_scale", "_activation_scale", ".input_scale", ".input_scale_ub", ".output_scale"),
    *(".k_scale", ".v_scale", ".q_scale", ".kv_scale", ".prob_scale", ".input_zero_point", ".output_zero_point"),
)


def scaled(
    tensors: Tensors, storage: Storage, kinds: tuple[torch.dtype, ...], block_of: Callable[[Tensor, Tensor], Block]
) -> Tensors:
    """Every weight of these dtypes multiplied with the scale beside it, when it is read.

    :param block_of: rows and columns that share a scale, by the weight and its scale.
    :raises CheckpointError: for a weight without scale, one that is no matrix, or a scale without such a weight.
    """
    found: Tensors = {}
    for name, tensor in tensors.items():
        scale = next((tensors[name + end] for end in SCALES if name + end in tensors), None)
        if name.endswith(UNUSED) or _belongs(name, tensors):
            continue
        if tensor.dtype in kinds and tensor.ndim < 2:
            raise storage.refusal(f"{name} is {tuple(tensor.shape)}, and only matrices are stored in eight bits")
        if tensor.dtype in kinds and scale is not None:
            block = block_of(tensor, scale)
            found[name] = unblocked(tensor, _grid(tensor, scale, block), block, tensors.get(name + ZEROS))
        elif tensor.dtype in kinds or scale is not None:
            having = "no scale" if scale is None else "a scale"
            raise storage.refusal(f"{name} is {str(tensor.dtype).removeprefix('torch.')} and has {having}")
        else:
            found[name] = tensor
    return found


def _belongs(name: str, tensors: Tensors) -> bool:
    """Whether a tensor is the scale or zero point of another."""
    return any(name.endswith(end) and name.removesuffix(end) in tensors for end in (*SCALES, ZEROS))


def _grid(weight: Tensor, scale: Tensor, block: Block) -> Tensor:
    """A scale as float32 [..., blocks of rows, blocks of columns]."""
    # One byte with an exponent, as the microscaling formats have it.
    values = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()
    return values.reshape(*weight.shape[:-2], *blocks(weight, block))


def blocks(weight: Tensor, block: Block) -> tuple[int, int]:
    """How many blocks a matrix has, the last of each kind perhaps cut short."""
    return -(-weight.shape[-2] // block[0]), -(-weight.shape[-1] // block[1])


def unblocked(weight: Tensor, scale: Tensor, block: Block, zero: Tensor | None = None) -> LazyWeight:
    """The weight [rows, columns], or stacked matrices, when it is read.

    :param scale: float32 [blocks of rows, blocks of columns], behind the dimensions of a stack.
    :param zero: as many as there are scales.
    """
    if weight.ndim > 2:
        # A stack has no zero points.
        return LazyWeight(weight.shape, partial(_stack, weight, scale, block))
    return of_numbers(weight.shape, lambda start, stop: weight[start:stop], scale, block, zero)


def _stack(weight: Tensor, scale: Tensor, block: Block, start: int, stop: int) -> Tensor:
    return torch.stack([unblocked(weight[index], scale[index], block).whole() for index in range(start, stop)])


def of_numbers(
    shape: Sequence[int], numbers: ReadRows, scale: Tensor, block: Block, zero: Tensor | None = None
) -> LazyWeight:
    """The same for a matrix whose numbers are made when they are read.

    :param numbers: stored numbers of the rows from one to another.
    """
    zeros = None if zero is None else zero.reshape(scale.shape)

    def fill(part: Tensor, first: int, last: int) -> None:
        part.copy_(numbers(first, last))
        index = torch.arange(first, last) // block[0]
        if zeros is not None:
            part -= _spread(zeros[index].float(), block, part)
        part *= _spread(scale[index], block, part)

    return LazyWeight(shape, lambda start, stop: in_steps(shape[1], start, stop, fill))


def _spread(values: Tensor, block: Block, part: Tensor) -> Tensor:
    """A number of every block of columns for every column."""
    return values if values.shape[1] == 1 else values.repeat_interleave(block[1], 1)[:, : part.shape[1]]


def read_fp8(tensors: Tensors, storage: Storage) -> Tensors:
    """FP8 as transformers and vLLM write it (transformers 5.24 integrations/finegrained_fp8.py).

    :raises CheckpointError: for scales that do not fit `weight_block_size`.
    """
    size = storage.settings.get("weight_block_size", (128, 128))
    if storage.settings.get("expert_dtype", "fp8") != "fp8":
        raise storage.refusal(f"its experts are {storage.settings['expert_dtype']!r}, and only FP8 is read")

    def block_of(weight: Tensor, scale: Tensor) -> Block:
        if scale.numel() == 1:
            return weight.shape[-2], weight.shape[-1]
        given = tuple(size) if isinstance(size, (list, tuple)) else ()
        if len(given) == 2 and all(type(item) is int and item > 0 for item in given):
            block = (given[0], given[1])
            if tuple(scale.shape) == (*weight.shape[:-2], *blocks(weight, block)):
                return block
        raise storage.refusal(f"scales {tuple(scale.shape)} of weights {tuple(weight.shape)} with blocks {size!r}")

    return scaled(tensors, storage, FLOAT8, block_of)


def read_rows(tensors: Tensors, storage: Storage) -> Tensors:
    """FP8 with one scale a row (transformers 5.24 integrations/fbgemm_fp8.py).

    :raises CheckpointError: for scales of another shape.
    """

    def block_of(weight: Tensor, scale: Tensor) -> Block:
        if scale.numel() != weight.shape[0] or weight.ndim != 2:
            raise storage.refusal(f"scales {tuple(scale.shape)} of weights {tuple(weight.shape)}")
        return 1, weight.shape[1]

    return scaled(tensors, storage, FLOAT8, block_of)


def read_modelopt(tensors: Tensors, storage: Storage) -> Tensors:
    """ModelOpt's FP8, one scale a tensor or a row (vLLM model_executor/layers/quantization/modelopt.py).

    :raises CheckpointError: for its other algorithms.
    """
    algorithm = str(storage.settings.get("quant_algo")).upper()
    if algorithm == "FP8_PER_CHANNEL_PER_TOKEN":
        return read_rows(tensors, storage)
    if algorithm != "FP8":
        raise storage.refusal(f"quant_algo={storage.settings.get('quant_algo')!r} is not read, only 'FP8' is")

    def block_of(weight: Tensor, scale: Tensor) -> Block:
        if scale.numel() != 1:
            raise storage.refusal(f"scales {tuple(scale.shape)} of weights {tuple(weight.shape)}, not one a tensor")
        return weight.shape[-2], weight.shape[-1]

    return scaled(tensors, storage, FLOAT8, block_of)
