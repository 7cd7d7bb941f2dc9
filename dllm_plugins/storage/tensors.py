"""Tensors of a file compared with what its config says, before anything is made of them.

Whoever fuses, converts or computes afterwards may trust every name, shape and dtype.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any
from typing import TypeVar

import torch
from torch import Tensor

from dllm_kernels.blocks import Weight
from dllm_plugins.errors import CheckpointError
from dllm_plugins.storage.lazy import LazyWeight

M = TypeVar("M", bound=Weight)
#: What a weight is stored in. Whole numbers and booleans are none, whatever their names say.
WEIGHTS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
#: Numbers at a time that torch leaves to one thread; its threads take longer to meet than one of them for these. On a
#: machine that is busy they wait for one another for milliseconds, which hundreds of small weights add up to seconds.
_PIECE = 1 << 14
#: Numbers of a weight that are converted by one thread.
_SMALL = 1 << 20


def compare(tensors: Mapping[str, Weight], expected: Mapping[str, tuple[int, ...]], origin: str, remedy: str) -> None:
    """Refuse weights that contradict their config.

    :param expected: names and shapes, all that there may be.
    :param origin: where the tensors are from, and `remedy` what to do about them, for the error.
    :raises CheckpointError: naming one that is missing, surplus, misshapen or no weight.
    """
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{origin} has no tensor {missing[0]!r} ({len(missing)} missing in all); {remedy}")
    if surplus:
        raise CheckpointError(f"{origin} holds {surplus[0]!r}, which its config does not account for; {remedy}")
    for name, shape in expected.items():
        found = tensors[name]
        if tuple(found.shape) != shape:
            raise CheckpointError(f"{origin}: {name} is {tuple(found.shape)}, config.json says {shape}; {remedy}")
        if found.dtype not in WEIGHTS:
            raise CheckpointError(f"{origin}: {name} is {found.dtype}, which no weight is stored in; {remedy}")


def add_file(tensors: dict[str, Tensor], found: Mapping[str, Tensor], path: object) -> None:
    """Join a file's tensors to those of the files before.

    :raises CheckpointError: for a name that is there already.
    """
    twice = sorted(tensors.keys() & found.keys())
    if twice:
        raise CheckpointError(f"{path} holds {twice[0]!r} again; remove the file that does not belong here")
    tensors |= found


def one_dtype(tensors: Mapping[str, Weight], origin: str, remedy: str) -> None:
    """Refuse tensors of several dtypes.

    :raises CheckpointError: naming them.
    """
    names = sorted({str(tensor.dtype) for tensor in tensors.values()})
    if len(names) > 1:
        raise CheckpointError(f"{origin} holds weights of {', '.join(names)}, which are not one dtype; {remedy}")


def converted(tensors: Mapping[str, M], dtype: torch.dtype, origin: str, remedy: str) -> dict[str, M]:
    """All tensors in a dtype.

    :raises CheckpointError: for numbers that are not finite there: no answer follows from them.
    """
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        # A stored weight that already has the dtype is made, too: else every product would make it anew.
        found[name] = tensor.converted(dtype, None) if isinstance(tensor, LazyWeight) else _to(tensor, dtype)
        if not _finite(found[name]):
            raise CheckpointError(f"{origin}: {name} holds numbers that are not finite in {dtype}; {remedy}")
    return found


def _to(tensor: Weight, dtype: torch.dtype) -> Weight:
    if not isinstance(tensor, Tensor) or tensor.dtype == dtype or not _is_small(tensor):
        return tensor.to(dtype)
    made = torch.empty(tensor.shape, dtype=dtype)
    for new, old in zip(made.view(-1).split(_PIECE), tensor.reshape(-1).split(_PIECE), strict=True):
        new.copy_(old)
    return made


def _finite(tensor: Weight) -> bool:
    if not isinstance(tensor, Tensor):
        return bool(tensor.isfinite().all())
    if not tensor.numel():
        return True
    parts = tensor.reshape(-1).split(_PIECE) if _is_small(tensor) else (tensor,)
    # What is not a number is the least and the largest of all.
    return all(isfinite(float(bound)) for part in parts for bound in part.aminmax())


def _is_small(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.numel() <= _SMALL
