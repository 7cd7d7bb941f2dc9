"""The default model's own weights as a GGUF adapter: what llama.cpp adds to the base at open rows.

The low-rank pairs are an ordinary LoRA adapter (arXiv 2106.09685), which any program of llama.cpp
applies at scale 1. Fused projections come apart: query, key and value share the pair's first
matrix and take a part of the second one each. What llama.cpp has no use for is in the same file:
the mask's embedding and the draft head as tensors under names ending in `_norm.weight`, the only
ones that its reader leaves alone (llama.cpp 0c1e57098, src/llama-adapter.cpp), the shortlist of
drafts as a key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.progress import quiet
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.names import TensorEntry
from dllm_plugins.gguf.names import paired
from dllm_plugins.gguf.tensors import read_tensor
from dllm_plugins.gguf.writing import FLOATS
from dllm_plugins.gguf.writing import write

_DRAFTS = "dllm.draft_tokens"
_ORIGIN = "dllm.denoiser."


@dataclass(frozen=True, slots=True)
class AdapterExtras:
    """What the file holds beside the pairs.

    :param mask_embedding: [width].
    :param chain_down: [inner, 3 * width]; `chain_up`: [width, inner].
    :param draft_tokens: int64 [N]; None to draft from the whole vocabulary.
    """

    mask_embedding: Tensor
    chain_down: Tensor
    chain_up: Tensor
    draft_tokens: Tensor | None


_TENSORS = ("mask_embedding", "chain_down", "chain_up")


def write_adapter(weights: LowRankWeights, shape: LlamaShape, architecture: str, out: Path) -> None:
    """Write the adapter for a base of that shape; matrices keep their type.

    :param architecture: of the base's file; where it rotates neighbouring pairs, query and key are arranged so.
    """
    metadata: dict[str, Any] = {
        "general.architecture": architecture,
        "general.type": "adapter",
        "adapter.type": "lora",
        "dllm.format": FORMAT,
        **{_ORIGIN + key: value for key, value in weights.metadata.items() if key != "format"},
    }
    if weights.draft_tokens is not None:
        metadata[_DRAFTS] = weights.draft_tokens.tolist()
    known = ARCHITECTURES.get(architecture)
    entries = list(_pairs(weights, shape, permuted=known is not None and known.permuted))
    entries += [TensorEntry.of(_name(name), getattr(weights, name)) for name in _TENSORS]
    kinds = {dtype: kind for kind, dtype in FLOATS.items()}
    write(out, metadata, entries, kinds[weights.chain_down.dtype], quiet)


def _name(field: str) -> str:
    return f"dllm.{field}_norm.weight"


def _pairs(weights: LowRankWeights, shape: LlamaShape, *, permuted: bool) -> Iterator[TensorEntry]:
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for index, (qkv, out, gate_up, down) in enumerate(weights.pairs):
        parts = [
            ("attn_q", qkv[0], qkv[1][:query]),
            ("attn_k", qkv[0], qkv[1][query : query + key]),
            ("attn_v", qkv[0], qkv[1][query + key :]),
            ("attn_output", *out),
            ("ffn_gate", gate_up[0], gate_up[1][: shape.intermediate]),
            ("ffn_up", gate_up[0], gate_up[1][shape.intermediate :]),
            ("ffn_down", *down),
        ]
        heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads} if permuted else {}
        for name, first, second in parts:
            yield TensorEntry.of(f"blk.{index}.{name}.weight.lora_a", first)
            make = partial(_second, second, heads.get(name, 0))
            yield TensorEntry(f"blk.{index}.{name}.weight.lora_b", tuple(second.shape), make)


def _second(second: Tensor, heads: int) -> Tensor:
    """The factor is a power of two, so nothing is lost by keeping it here; `adapter.lora.alpha` depends on the rank."""
    scaled = second * SCALE
    return paired(scaled, heads) if heads else scaled


def read_adapter(path: Path, width: int) -> AdapterExtras:
    """What a file of :func:`write_adapter` holds for us; the pairs are llama.cpp's to read.

    :param width: of the base.
    :raises CheckpointError: for another kind of file, or another base's.
    """
    header = read_header(path)
    if header.metadata.get("dllm.format") != FORMAT:
        raise CheckpointError(
            f"{path} has dllm.format={header.metadata.get('dllm.format')!r}, expected {FORMAT!r}; "
            f"it is no adapter of the default model"
        )
    mask, down, up = (_checked(header, name, width) for name in _TENSORS)
    drafts = header.metadata.get(_DRAFTS)
    return AdapterExtras(mask, down, up, None if drafts is None else torch.from_numpy(np.array(drafts, np.int64)))


def _checked(header: Header, name: str, width: int) -> Tensor:
    info = header.tensors.get(_name(name))
    if info is None:
        raise CheckpointError(f"{header.path} has no tensor {_name(name)!r}; make the adapter again")
    across = {"mask_embedding": info.shape[0], "chain_down": info.shape[-1] / 3, "chain_up": info.shape[0]}[name]
    if across != width:
        raise CheckpointError(f"{header.path}: {name} is {info.shape}, but the base model's width is {width}")
    return read_tensor(header, info)
