"""A dense file's keys as the config of transformers' class: what others converted has no other config in it.

The reverse of :func:`~dllm_plugins.gguf.architectures.describe` and :func:`~dllm_plugins.gguf.rotary.rotary`. llama.cpp
reads more keys than these, some of which change what is computed; a file with any of them is left to it.
"""

import math
from typing import Any

import numpy as np

from dllm_plugins.errors import OptionError
from dllm_plugins.files.limits import CONTEXT
from dllm_plugins.files.limits import LAYERS
from dllm_plugins.files.limits import WIDTH
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.limits import whole
from dllm_plugins.gguf.header import Header
from dllm_plugins.messages import message

#: Keys, without the architecture's prefix, that are read here, or change nothing in a dense decoder.
KNOWN = frozenset(
    {
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "vocab_size",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "attention.layer_norm_rms_epsilon",
        "attention.causal",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
        "rope.scaling.finetuned",
        "tensor_data_layout",
    }
)
#: What a file without it means.
_THETA = 10000.0


def config_of(header: Header) -> dict[str, Any]:
    """Arguments of the config's class.

    :raises CheckpointError: for numbers that no model has.
    :raises OptionError: for keys and values that are not computed here.
    """
    prefix, origin = f"{header.architecture}.", str(header.path)
    for key in header.metadata:
        if key.startswith(prefix) and key.removeprefix(prefix) not in KNOWN and header.metadata[key]:
            raise _refused(header, key)
    heads = _size(header, "attention.head_count")
    hidden = _size(header, "embedding_length")
    config: dict[str, Any] = {
        "vocab_size": header.tensors["token_embd.weight"].shape[0],
        "hidden_size": hidden,
        "intermediate_size": _size(header, "feed_forward_length"),
        "num_hidden_layers": _size(header, "block_count", LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": _size(header, "attention.head_count_kv", default=heads),
        "head_dim": _size(header, "attention.key_length", default=hidden // heads),
        "max_position_embeddings": _size(header, "context_length", CONTEXT),
        "rms_norm_eps": _real(header, "attention.layer_norm_rms_epsilon"),
        "rope_parameters": _rotary(header),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        "hidden_act": "silu",
    }
    if header.value("rope.dimension_count") not in (None, config["head_dim"]):
        raise _refused(header, f"{prefix}rope.dimension_count")
    check_numbers(config, origin)
    return config


def _refused(header: Header, key: str) -> OptionError:
    value = header.metadata.get(key)
    return OptionError(
        message(
            "{backend}='kernels' does not compute {}={!r} of {}; leave {backend} out, which llama.cpp then computes",
            key,
            value,
            header.path,
        )
    )


def _size(header: Header, name: str, most: int = WIDTH, default: int | None = None) -> int:
    return whole(header.value(name, default), f"{header.architecture}.{name}", str(header.path), 1, most)


def _real(header: Header, name: str, default: float | None = None) -> float:
    """A number as it was written before it was rounded to float32."""
    value = header.value(name, default)
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise _refused(header, f"{header.architecture}.{name}")
    return float(str(np.float32(value)))


def _rotary(header: Header) -> dict[str, Any]:
    """Its rotary embedding; that of a file with a factor for each frequency is mended by whoever reads tensors."""
    rope: dict[str, Any] = {"rope_theta": _real(header, "rope.freq_base", _THETA), "rope_type": "default"}
    kind = header.value("rope.scaling.type", "none")
    if kind == "none":
        return rope
    if kind not in ("linear", "yarn"):
        raise _refused(header, f"{header.architecture}.rope.scaling.type")
    factor = _real(header, "rope.scaling.factor")
    rope |= {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        length = _size(header, "rope.scaling.original_context_length", CONTEXT)
        grown = 0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0
        attention = _real(header, "rope.scaling.attn_factor", 1.0) * grown
        rope |= {"original_max_position_embeddings": length, "attention_factor": attention}
    return rope
