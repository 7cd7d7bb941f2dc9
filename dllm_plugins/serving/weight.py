"""How much memory the weights of a model take."""

import gc
from pathlib import Path
from types import BuiltinFunctionType
from types import CodeType
from types import FrameType
from types import FunctionType
from types import ModuleType
from typing import Any

import torch

from dllm_plugins.serving.settings import Loading

#: What leads from a model to the rest of the process.
_NOT_ITS_OWN = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, FrameType)
_FILES = (".safetensors", ".bin", ".gguf")


def on_disk(loading: Loading) -> int:
    """Bytes of the files of weights that a model is loaded from; 0 where they are not known."""
    place = Path(str(loading.options.get("base") or loading.place)).expanduser()
    if place.is_dir():
        return sum(file.stat().st_size for file in place.iterdir() if file.suffix in _FILES)
    return place.stat().st_size if place.is_file() else 0


def weight_of(model: Any) -> int:
    """Bytes of all tensors that an object holds, each memory counted once."""
    found, seen, left = dict[int, int](), set[int](), [model]
    while left:
        item = left.pop()
        if id(item) in seen or isinstance(item, _NOT_ITS_OWN):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        left += gc.get_referents(item)
    return sum(found.values())
