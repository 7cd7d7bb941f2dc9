"""For type checkers, which find `gguf.py` here before the package of that name: what we use of the package."""

from enum import IntEnum
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

GGML_QUANT_SIZES: dict[GGMLQuantizationType, tuple[int, int]]

class GGMLQuantizationType(IntEnum):
    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8
    BF16 = 30

class GGUFValueType(IntEnum):
    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12

class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6

class GGUFReader:
    fields: dict[str, Any]
    tensors: list[Any]
    def __init__(self, path: str | PathLike[str], mode: str = "r") -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class GGUFWriter:
    def __init__(self, path: str | PathLike[str] | None, arch: str, **options: Any) -> None: ...
    def add_tensor(self, name: str, tensor: NDArray[Any], **options: Any) -> None: ...
    def add_tensor_info(
        self, name: str, tensor_shape: tuple[int, ...], tensor_dtype: np.dtype[Any], tensor_nbytes: int, raw_dtype: Any
    ) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def __getattr__(name: str) -> Any: ...
