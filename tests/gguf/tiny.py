"""Tiny random models, in transformers and as GGUF files, without the converter: what runs them is tested apart."""

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers import LlamaForCausalLM
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM
from transformers import Qwen3MoeConfig
from transformers import Qwen3MoeForCausalLM

Array = np.ndarray[Any, Any]
VOCABULARY = 311
MASK = 310
CONTEXT = 2048
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 25000.0,
    "tie_word_embeddings": False,
    "initializer_range": 0.15,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
_KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"num_hidden_layers": 3}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "qwen3moe": (
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {
            "head_dim": 32,
            "moe_intermediate_size": 64,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
}
#: What an architecture is written as: those on the right compute the same as those on the left.
KINDS = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3moe",
    "llada": "llama",
    "dream": "qwen2",
}
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}


@dataclass(frozen=True)
class Tiny:
    """The same weights twice: float32 in torch, and a file."""

    model: Any
    path: Path


def torch_model(kind: str, seed: int = 7) -> Any:
    """Random weights; norms and biases are random, too."""
    config, head, changes = _KINDS[kind]
    torch.manual_seed(seed)
    model = head(config(**{**_SIZES, **changes})).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
            elif weight.dim() == 1:
                weight.normal_(1, 0.2)
    return model


def _name(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    layer, _, part = name.removeprefix("model.layers.").partition(".")
    part, _, kind = part.rpartition(".")
    return f"blk.{layer}.{_PARTS[part]}.{kind}"


def _side_by_side(weight: Tensor, heads: int | None) -> Tensor:
    """Rotary pairs half a head apart, as transformers has them, put side by side, as ggml's first kind wants them."""
    return weight.reshape(heads or 1, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def _arrays(model: Any, architecture: str) -> Iterator[tuple[str, Array]]:
    """The tensors of a file."""
    config = model.config
    for name, weight in model.state_dict().items():
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        if part == "mlp.experts.gate_up_proj":
            gate, up = weight.float().chunk(2, dim=1)
            yield f"blk.{layer}.ffn_gate_exps.weight", gate.numpy()
            yield f"blk.{layer}.ffn_up_exps.weight", up.numpy()
        elif part == "mlp.experts.down_proj":
            yield f"blk.{layer}.ffn_down_exps.weight", weight.float().numpy()
        else:
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
                name.split(".")[-2]
            )
            paired = heads is not None and KINDS[architecture] == "llama"
            yield _name(name), (_side_by_side(weight, heads) if paired else weight).float().numpy()


def write(
    model: Any, path: Path, architecture: str, quant: str = "F32", metadata: Mapping[str, int] | None = None
) -> Path:
    """Write the weights of a model of transformers; matrices in `quant`, the rest in F32."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    for key, value in (metadata or {}).items():
        writer.add_uint32(f"{architecture}.{key}", value)
    if architecture == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    for name, data in _arrays(model, architecture):
        kind = gguf.GGMLQuantizationType[quant]
        if data.ndim == 1 or quant == "F32" or ".ffn_gate_inp." in name:
            writer.add_tensor(name, np.ascontiguousarray(data))
        else:
            writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny(folder: Path, architecture: str = "llama", quant: str = "F32", seed: int = 7) -> Tiny:
    """A model and its file."""
    model = torch_model(KINDS[architecture], seed)
    return Tiny(model, write(model, folder / f"{architecture}-{quant}-{seed}.gguf", architecture, quant))


def tokens(count: int, seed: int = 1) -> list[int]:
    """Random ids, none of them the mask."""
    generator = torch.Generator().manual_seed(seed)
    found: list[int] = torch.randint(0, MASK, (count,), generator=generator).tolist()
    return found


@torch.inference_mode()
def logits(model: Any, ids: list[int], seen: Tensor) -> Tensor:
    """Logits [length, V] of a whole sequence; `seen` says who sees whom, bool [length, length]."""
    mask = torch.zeros(1, 1, *seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    found: Tensor = model(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).logits[0]
    return found
