"""Tokens whose rotary position is not their place in the cache: what open rows of the default model need.

An open row for position p sits at rotary position p - 1, where a committed token may sit, too, and
places between two open rows may be missing. llama.cpp refuses that of ordinary graphs: positions
of a stream are consecutive. Graphs for images have four positions a token, of which the first
orders the cache and each of the others turns a share of every head. With all of the head's pairs
in the second one's share, cache and rotation are told apart. `paddleocr` (llama.cpp 0c1e57098,
src/models/{paddleocr,ernie4-5}.cpp) is Llama's graph in that form, so a Llama's file is
renamed; its rotary pairs stand half a head apart, as in transformers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFValueType
from numpy.typing import NDArray

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import TensorInfo
from dllm_plugins.gguf.names import foreign
from dllm_plugins.gguf.writing import synced
from dllm_plugins.llama_cpp.batch import LlamaBatch
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.library import complaints
from dllm_plugins.llama_cpp.library import failed
from dllm_plugins.llama_cpp.model import GgufModel

ARCHITECTURE = "paddleocr"
#: llama.h, LLAMA_ROPE_TYPE_MROPE.
_SHARED_ROPE = 8
#: Positions a token has in such a graph.
_POSITIONS = 4
_SOURCE = "llama"
_INTEGERS = (GGUFValueType.ARRAY, GGUFValueType.INT32)


class PlacedModel(GgufModel):
    """A file that :func:`write_placed` has made."""

    ropes = (_SHARED_ROPE,)

    def adapter(self, path: Path) -> Any:
        """llama.cpp's handle of an adapter's file; freed together with the model.

        :raises GgufError: if it does not fit the model.
        """
        complaints()
        found = self._library.llama_adapter_lora_init(self.pointer, os.fsencode(path))
        if not found:
            raise failed(f"llama.cpp does not take the adapter {path}", f"make it for {self.path}")
        return found


@dataclass(frozen=True, slots=True)
class PlacedSpan(Span):
    """Embeddings with rotary positions of their own, one each.

    :param rotary: `begin` and the positions behind it say only where in the stream they are kept.
    """

    rotary: Sequence[int] = ()


class PlacedLlamaBatch(LlamaBatch):
    """Room for a call's tokens, with four positions each where they come as embeddings."""

    def __init__(self, library: Any, capacity: int, width: int) -> None:
        super().__init__(library, capacity, width)
        self._places4 = np.zeros(_POSITIONS * capacity, np.int32)
        self._plain = self._pointer("pos", self._positions)

    def fill(self, spans: Sequence[Span]) -> Any:
        """The struct for these spans, in this order; valid until the next call."""
        found = super().fill(spans)
        found.pos = self._plain
        if spans[0].embeddings is None:
            return found
        count = found.n_tokens
        places = self._places4[: _POSITIONS * count].reshape(_POSITIONS, count)
        places[:] = 0
        places[0] = self._positions[:count]
        places[1] = [place for span in spans for place in _rotary(span)]
        found.pos = self._pointer("pos", self._places4)
        return found


def _rotary(span: Span) -> Sequence[int]:
    if not isinstance(span, PlacedSpan):
        return range(span.begin, span.begin + len(span))
    if len(span.rotary) != len(span) or min(span.rotary) < 0:
        raise GgufError(f"{len(span)} embeddings need as many rotary positions from 0 on, not {list(span.rotary)}")
    return span.rotary


class PlacedContext(Context):
    """Streams of a :class:`PlacedModel`; takes :class:`PlacedSpan` beside ordinary spans."""

    def _room(self, tokens: int) -> LlamaBatch:
        return PlacedLlamaBatch(self._library, tokens, self.model.width)


def write_placed(header: Header, out: Path) -> None:
    """Write a Llama's file anew, of whatever type its weights are, as one whose rotation is placed apart.

    :raises CheckpointError: if the file is no plain Llama.
    """
    _check(header)
    writer = gguf.GGUFWriter(out, ARCHITECTURE)
    try:
        for key, value in header.metadata.items():
            if key not in ("general.architecture", "general.alignment"):
                kind, inner = header.types[key]
                name = f"{ARCHITECTURE}.{key.removeprefix('llama.')}" if key.startswith("llama.") else key
                writer.add_key_value(name, value, kind, inner)
        half = _head_size(header) // 2
        writer.add_key_value(f"{ARCHITECTURE}.rope.dimension_sections", [0, half, 0, 0], *_INTEGERS)
        for tensor in header.tensors.values():
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, tensor.type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        data = np.memmap(header.path, np.uint8, "r")
        for tensor in header.tensors.values():
            writer.write_tensor_data(_arranged(data[tensor.offset : tensor.offset + tensor.size], tensor, header))
        synced(writer)
    finally:
        writer.close()


def _check(header: Header) -> None:
    layer = {name for name in ARCHITECTURES[_SOURCE].layer.values() if name.endswith(".weight")}
    odd = foreign(header.tensors, layer)
    if header.architecture != _SOURCE or odd:
        what = f"has a tensor {odd[0]!r}" if header.architecture == _SOURCE else f"is a {header.architecture!r} file"
        raise CheckpointError(
            f"{header.path} {what}; the default model needs a plain Llama such as SmolLM2-135M-Instruct"
        )


def _head_size(header: Header) -> int:
    size = header.value("attention.key_length")
    return int(size or int(header.value("embedding_length")) // int(header.value("attention.head_count")))


def _arranged(data: "NDArray[np.uint8]", tensor: TensorInfo, header: Header) -> "NDArray[np.uint8]":
    """The tensor's bytes; rows of query and key from neighbouring pairs to halves of a head."""
    heads = header.value("attention.head_count")
    count = {"attn_q": heads, "attn_k": header.value("attention.head_count_kv", heads)}.get(tensor.name.split(".")[-2])
    if count is None:
        return data
    rows = data.reshape(int(count), -1, 2, len(data) // tensor.shape[0])
    return np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1)
