"""From tensors as they are stored to plain weights; what is not read is refused by name."""

from collections.abc import Callable
from collections.abc import Mapping

import torch
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.messages import message
from dllm_plugins.storage.bitsandbytes import read_bitsandbytes
from dllm_plugins.storage.compressed import read_compressed
from dllm_plugins.storage.groups import read_awq
from dllm_plugins.storage.groups import read_gptq
from dllm_plugins.storage.lazy import LazyWeight
from dllm_plugins.storage.scaled import Tensors
from dllm_plugins.storage.scaled import read_fp8
from dllm_plugins.storage.scaled import read_modelopt
from dllm_plugins.storage.scaled import read_rows
from dllm_plugins.storage.settings import REMEDY
from dllm_plugins.storage.settings import Storage

#: What is read, by `quant_method`; everything else is refused.
FORMS: Mapping[str, Callable[[Tensors, Storage], Tensors]] = {
    "awq": read_awq,
    "bitsandbytes": read_bitsandbytes,
    "compressed-tensors": read_compressed,
    "fbgemm-fp8": read_rows,
    "fp8": read_fp8,
    "gptq": read_gptq,
    "modelopt": read_modelopt,
}
#: What a plain weight can be.
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_storage(storage: Storage) -> None:
    """Refuse a method that is not read, before any weight is fetched.

    :raises CheckpointError: naming it.
    """
    if storage.method and storage.method not in FORMS:
        raise storage.refusal(f"that is not read, only {', '.join(FORMS)} are")


def plain_tensors(tensors: Tensors, storage: Storage) -> Tensors:
    """Plain weights by their own names; those that are computed are made when they are read.

    :raises CheckpointError: for a method, or a variant of it, that is not read, and weights that are not as it says.
    """
    if not storage.method:
        return tensors
    check_storage(storage)
    found = FORMS[storage.method](tensors, storage)
    if not any(isinstance(tensor, LazyWeight) for tensor in found.values()):
        raise CheckpointError(
            f"{storage.origin} says that the weights are stored as {storage.method!r}, but none is; if they are plain "
            f"weights, take those words out of the file"
        )
    return found


def check_dtypes(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse what no weight can be: integers, or eight-bit floats, about whose scales nothing is said.

    :raises CheckpointError: naming a tensor.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                message(
                    "{}: {} is {}, which no weight can be, and its config.json does not say how it is stored; {}",
                    where,
                    name,
                    str(tensor.dtype).removeprefix("torch."),
                    REMEDY,
                )
            )


def plain_dtype(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype of the first weight that is stored as it is."""
    plain = (tensor.dtype for tensor in tensors.values() if not isinstance(tensor, LazyWeight))
    return next(plain, torch.float32)
