"""The base model's GGUF file: its metadata, and its tensors as they lie there.

It reads the one file whose SHA-256 was compared before, so it checks little and knows only what is in that file;
:mod:`dllm_plugins.gguf` reads files from anybody. Names and the order of rows are the hub's.
Format: ggml-org/ggml docs/gguf.md.
"""

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.blocks import IN_BLOCK
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.blocks import Weight
from dllm_plugins.default_model.header import AGAIN
from dllm_plugins.default_model.header import HeaderReader
from dllm_plugins.default_model.header import StoredTensor
from dllm_plugins.errors import CheckpointError

_F32 = 0
_ALIGNMENT = 32
_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


@dataclass(frozen=True, slots=True)
class StoredBase:
    """What the file says of the model, and its weights by the hub's names: matrices in blocks, norms in bfloat16."""

    metadata: Mapping[str, Any]
    tensors: dict[str, Weight]


def read_stored(file: Path, words: bool = False) -> StoredBase:
    """Read the file; the tensors are views of it, which keep it mapped.

    :param words: whether to read lists of strings, too: the tokenizer's hundred thousand, which take a while.
    :raises CheckpointError: for a file that cannot be read, or is not what it was.
    """
    try:
        with file.open("rb") as opened:
            # Copy on write: torch wants memory it may write to; nobody does.
            view = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        reader = _Reader(view, words)
        metadata, infos = reader.read()
        heads = {"attn_q": metadata["llama.attention.head_count"], "attn_k": metadata["llama.attention.head_count_kv"]}
        found = {_renamed(info.name): _unrotated(info.name, reader.tensor(info), heads) for info in infos}
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error) as error:
        raise CheckpointError(f"{file} is damaged ({error}); {AGAIN}") from error
    return StoredBase(metadata, found)


class _Reader(HeaderReader):
    """The same with the tensors behind it."""

    def __init__(self, view: mmap.mmap, words: bool) -> None:
        super().__init__(view, words)
        self._bytes = torch.frombuffer(view, dtype=torch.uint8)

    def tensor(self, info: StoredTensor) -> Weight:
        begin = -(-self.end // _ALIGNMENT) * _ALIGNMENT + info.place
        if info.kind == _F32:
            return self._part(begin, 4 * prod(info.shape)).view(torch.float32).view(info.shape).to(torch.bfloat16)
        kind, (rows, width) = Kind(info.kind), info.shape
        return Blocks(kind, self._part(begin, rows * width // IN_BLOCK * kind.size).view(rows, -1), torch.bfloat16)

    def _part(self, begin: int, size: int) -> Tensor:
        if begin + size > len(self._bytes):
            raise ValueError("it ends before its tensors do")
        return self._bytes[begin : begin + size]


def _renamed(name: str) -> str:
    stem, _, last = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{last}"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{last}"


def _unrotated(name: str, weight: Weight, heads: Mapping[str, int]) -> Weight:
    """llama.cpp rotates neighbours, the hub's Llama halves of a head: rows of queries and keys stand otherwise."""
    count = heads.get(name.split(".")[-2])
    if count is None or isinstance(weight, Tensor):
        return weight
    rows, width = weight.data.shape
    # In numpy, as torch's threads would take longer to meet than one of them takes for this.
    pairs = weight.data.numpy().reshape(count, rows // count // 2, 2, width)
    return replace(weight, data=torch.from_numpy(pairs.swapaxes(1, 2).reshape(rows, width)))
