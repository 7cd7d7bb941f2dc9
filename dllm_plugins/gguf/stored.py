"""A file's tensors as a block decoder's weights: matrices as they lie in the mapped file, in blocks or plain.

Where a file holds blocks, what it says is their numbers rounded to bfloat16, and so are its norms and plain matrices:
the weights are those of the checkpoint that dequantising to bfloat16 gives. A file without blocks has the weights
of the checkpoint it was made of. Query, key and value are joined, which copies them; so are gate and up, unless they
lie together already.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import below
from dllm_kernels.blocks import form_of
from dllm_kernels.blocks import plain
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import StoredLayer
from dllm_kernels.decoder import StoredWeights
from dllm_kernels.decoder import shape_of
from dllm_plugins.denoisers.weights import EMBEDDING
from dllm_plugins.denoisers.weights import HEAD
from dllm_plugins.denoisers.weights import NORM
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.checkpoint import check_size
from dllm_plugins.families.checkpoint import expected_tensors
from dllm_plugins.files.reading import reading
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.names import heads_of
from dllm_plugins.gguf.names import native_name
from dllm_plugins.gguf.names import unpaired
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.gguf.tensors import BLOCKS
from dllm_plugins.gguf.tensors import map_file
from dllm_plugins.gguf.tensors import mapped_weight
from dllm_plugins.storage.tensors import compare
from dllm_plugins.storage.tensors import converted

#: What each frequency is divided by; a file of ours says in its config what follows from it.
FACTORS = "rope_freqs.weight"
REMEDY = "download or convert it again"


def stored_weights(checkpoint: GgufCheckpoint, dtype: torch.dtype) -> AnyWeights:
    """The weights of a file that :func:`~dllm_plugins.gguf.decoded.check_decoded` lets pass.

    :param dtype: what is computed in.
    :raises CheckpointError: for tensors that contradict the config or are not finite; nothing is computed then.
    """
    config, origin = checkpoint.native_config, str(checkpoint.folder)
    file = map_file(checkpoint.header)
    with reading(checkpoint.folder, REMEDY):
        stored = _native(checkpoint, file, dtype)
        check_size(stored, config, checkpoint.folder)
        with torch.device("meta"):
            skeleton: Any = checkpoint.native(config)
        compare(stored, expected_tensors(skeleton, stored), origin, REMEDY)
        tensors = converted(_ordered(checkpoint, stored), dtype, origin, REMEDY)
        # Of the class itself, so that frequencies have the checkpoint's bits.
        rotary = type(skeleton.model.rotary_emb)(config)
        embedding = tensors[EMBEDDING]
        return StoredWeights(
            shape=shape_of(config),
            embedding=embedding,
            layers=tuple(_layer(tensors, f"model.layers.{index}.") for index in range(config.num_hidden_layers)),
            norm=plain(tensors[NORM]),
            head=tensors.get(HEAD, embedding),
            frequencies=_frequencies(checkpoint, file, rotary.inv_freq.float()),
            rope_scale=float(rotary.attention_scaling),
        )


def _native(checkpoint: GgufCheckpoint, file: Tensor, dtype: torch.dtype) -> dict[str, Weight]:
    """Tensors by the names of transformers' class."""
    graph, found = ARCHITECTURES[checkpoint.header.architecture], {}
    for name, info in checkpoint.header.tensors.items():
        native = native_name(name, graph)
        if native is not None:
            found[native] = mapped_weight(file, info, dtype)
    return found


def _ordered(checkpoint: GgufCheckpoint, stored: Mapping[str, Weight]) -> dict[str, Weight]:
    """The same with rows of queries and keys as the class has them, and with the digits that all of them have."""
    turned, rounded = ARCHITECTURES[checkpoint.header.architecture].permuted, _rounded(checkpoint)
    found: dict[str, Weight] = {}
    for name, weight in stored.items():
        heads = heads_of(name, checkpoint.native_config) if turned else 0
        if isinstance(weight, Blocks):
            found[name] = replace(weight, data=unpaired(weight.data, heads)) if heads else weight
        else:
            own = unpaired(weight, heads) if heads else weight
            found[name] = own.to(torch.bfloat16) if rounded else own
    return found


def _rounded(checkpoint: GgufCheckpoint) -> bool:
    """Whether all weights have bfloat16's digits: where some are in blocks."""
    return any(info.type in BLOCKS for info in checkpoint.header.tensors.values())


def _frequencies(checkpoint: GgufCheckpoint, file: Tensor, plain_ones: Tensor) -> Tensor:
    info = checkpoint.header.tensors.get(FACTORS)
    if info is None or checkpoint.ours:
        return plain_ones
    factors = plain(mapped_weight(file, info, torch.float32)).float()
    if factors.shape != plain_ones.shape or not bool((factors > 0).all() and factors.isfinite().all()):
        raise CheckpointError(
            f"{checkpoint.folder}: {FACTORS} is {list(factors.shape)}, and must be {list(plain_ones.shape)} numbers "
            f"above 0; {REMEDY}"
        )
    return plain_ones / factors


def _layer(tensors: dict[str, Weight], prefix: str) -> StoredLayer[Weight]:
    def take(name: str) -> Weight | None:
        return tensors.pop(prefix + name, None)

    def vector(*names: str) -> Tensor | None:
        found = [plain(part) for part in map(take, names) if part is not None]
        return torch.cat(found) if found else None

    def matrix(*names: str) -> Weight:
        return _joined([tensors.pop(f"{prefix}{name}.weight") for name in names])

    attention, feed = [f"self_attn.{part}_proj" for part in "qkv"], ["mlp.gate_proj", "mlp.up_proj"]
    return StoredLayer(
        input_norm=plain(tensors.pop(f"{prefix}input_layernorm.weight")),
        qkv=matrix(*attention),
        out=matrix("self_attn.o_proj"),
        post_norm=plain(tensors.pop(f"{prefix}post_attention_layernorm.weight")),
        gate_up=matrix(*feed),
        down=matrix("mlp.down_proj"),
        qkv_bias=vector(*(f"{name}.bias" for name in attention)),
        out_bias=vector("self_attn.o_proj.bias"),
        gate_up_bias=vector(*(f"{name}.bias" for name in feed)),
        down_bias=vector("mlp.down_proj.bias"),
        q_norm=vector("self_attn.q_norm.weight"),
        k_norm=vector("self_attn.k_norm.weight"),
    )


def _joined(parts: list[Weight]) -> Weight:
    """One matrix: in blocks where all are of one kind; files mix kinds where they keep more digits of values."""
    if len(set(map(form_of, parts))) > 1:
        return below([plain(part) for part in parts])
    joined: Weight = below(parts)
    return joined
