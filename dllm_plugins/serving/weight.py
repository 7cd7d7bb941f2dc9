"""How much memory the weights of a loaded model take."""

import gc
from types import BuiltinFunctionType
from types import CodeType
from types import FrameType
from types import FunctionType
from types import ModuleType
from typing import Any

import torch

#: What leads from a model to the rest of the process.
_NOT_ITS_OWN = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, FrameType)


def weight_of(model: Any) -> int:
    """Bytes of all tensors that an object holds, each memory counted once."""
    found, seen, left = dict[int, int](), set[int](), [model]
    while left:
        item = left.pop()
        if id(item) in seen or isinstance(item, _NOT_ITS_OWN):
            continue
        seen.add(id(item))
        # A tensor that stands for others, such as torchao's, has no memory of its own.
        if isinstance(item, torch.Tensor) and not hasattr(item, "__tensor_flatten__"):
            if item.is_mkldnn:
                # oneDNN keeps it in an order of its own, and tells nobody where.
                found[id(item)] = item.nbytes
            else:
                storage = item.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
        left += gc.get_referents(item)
    return sum(found.values())
