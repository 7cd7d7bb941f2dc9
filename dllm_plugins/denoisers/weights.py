"""Weights of a Llama-shaped decoder, read straight from a folder in the hub's format.

Query/key/value and gate/up projections are fused once at load time, so that a layer
is four products. Reading safetensors directly keeps one copy of the weights in
memory and needs no model class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import Tensor

from dllm_plugins.errors import CheckpointError
from dllm_plugins.limits import check_numbers
from dllm_plugins.reading import read_object
from dllm_plugins.reading import regular


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The numbers of `config.json` that the forward needs."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    rope_theta: float
    rms_eps: float
    context: int

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LlamaShape":
        """Read a Llama `config.json`.

        :raises CheckpointError: if the config asks for something this forward does not do.
        """
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        refused = {
            "model_type": (config.get("model_type"), "llama"),
            "hidden_act": (config.get("hidden_act", "silu"), "silu"),
            "attention_bias": (bool(config.get("attention_bias", False)), False),
            "mlp_bias": (bool(config.get("mlp_bias", False)), False),
            "tie_word_embeddings": (bool(config.get("tie_word_embeddings", False)), True),
            "rope_type": (kind, "default"),
        }
        for name, (found, wanted) in refused.items():
            if found != wanted:
                raise CheckpointError(
                    f"config.json says {name}={found!r}, but the default model's denoiser needs "
                    f"{name}={wanted!r}; use a copy of SmolLM2-135M-Instruct"
                )
        try:
            return cls(
                layers=int(config["num_hidden_layers"]),
                hidden=int(config["hidden_size"]),
                heads=int(config["num_attention_heads"]),
                kv_heads=int(config["num_key_value_heads"]),
                head_dim=int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]),
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
                rms_eps=float(config["rms_norm_eps"]),
                context=int(config["max_position_embeddings"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"config.json lacks or garbles a value: {error}") from error


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. Linear weights are [out, in]."""

    input_norm: Tensor
    qkv: Tensor
    out: Tensor
    post_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class LlamaWeights:
    """A whole decoder with tied embeddings."""

    shape: LlamaShape
    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint folder.

    :raises CheckpointError: if it is missing, no JSON object, or holds a number that no model has.
    """
    place = folder / "config.json"
    config = read_object(place)
    check_numbers(config, str(place))
    return config


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of `*.safetensors` in `folder`, by name.

    :raises CheckpointError: if there are none, or a file is damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"no *.safetensors in {folder}; run `python -m dllm_plugins setup --force` to fetch the base model again"
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= read_file(path, "run `python -m dllm_plugins setup --force` to fetch the base model again")
    return tensors


def read_file(path: Path, remedy: str) -> dict[str, Tensor]:
    """All tensors of one safetensors file, by name; they are views of the file, not copies.

    :param remedy: what to do about a damaged file, for the error.
    :raises CheckpointError: if it is damaged, or no regular file.
    """
    regular(path, remedy)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error


def _layer(tensors: dict[str, Tensor], index: int) -> LayerWeights:
    def take(*names: str) -> Tensor:
        parts = [tensors.pop(f"model.layers.{index}.{name}.weight") for name in names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return LayerWeights(
        input_norm=take("input_layernorm"),
        qkv=take("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=take("self_attn.o_proj"),
        post_norm=take("post_attention_layernorm"),
        gate_up=take("mlp.gate_proj", "mlp.up_proj"),
        down=take("mlp.down_proj"),
    )


def load_llama(folder: Path, dtype: torch.dtype) -> LlamaWeights:
    """Load a tied-embedding Llama checkpoint on the CPU in `dtype`.

    :raises CheckpointError: if the folder does not hold such a checkpoint.
    """
    shape = LlamaShape.from_config(read_config(folder))
    return llama_from({name: tensor.to(dtype) for name, tensor in read_tensors(folder).items()}, shape, str(folder))


def llama_from(tensors: dict[str, Tensor], shape: LlamaShape, origin: str) -> LlamaWeights:
    """Fuse tensors of transformers' names; `tensors` is emptied on the way.

    :param origin: where they are from, for errors.
    :raises CheckpointError: if one is missing, misshapen, or nothing this forward would use.
    """
    try:
        layers = tuple(_layer(tensors, index) for index in range(shape.layers))
        embedding = tensors.pop("model.embed_tokens.weight")
        norm = tensors.pop("model.norm.weight")
    except KeyError as error:
        raise CheckpointError(f"{origin} has no tensor {error.args[0]!r}") from error
    tensors.pop("lm_head.weight", None)
    if tensors:
        raise CheckpointError(f"{origin} holds tensors a plain Llama does not have, for example {min(tensors)!r}")
    if tuple(embedding.shape) != (shape.vocabulary, shape.hidden):
        raise CheckpointError(
            f"model.embed_tokens.weight is {tuple(embedding.shape)}, config.json says "
            f"{(shape.vocabulary, shape.hidden)}"
        )
    return LlamaWeights(shape=shape, embedding=embedding, layers=layers, norm=norm)


def rotary_table(shape: LlamaShape, length: int) -> Tensor:
    """Cosines and sines of the rotary embedding, float32 [2, length, head_dim] (arXiv 2104.09864)."""
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / shape.rope_theta**half)
    doubled = torch.cat([angles, angles], dim=-1)
    return torch.stack([doubled.cos(), doubled.sin()])
