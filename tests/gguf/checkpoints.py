"""Tiny random checkpoints of every family that llama.cpp computes, in the families' own layouts."""

import json
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dllm_plugins.families.layouts import layout_of

from .own_layouts import OWN
from .own_layouts import Tensors
from .own_layouts import same

VOCABULARY = 233
MASK = 232

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 25000.0,
    "tie_word_embeddings": False,
    "mask_token_id": MASK,
}
_LLADA: dict[str, Any] = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "rope": True,
    "n_heads": 4,
    "n_kv_heads": 2,
    "d_model": 64,
    "mlp_hidden_size": 96,
    "n_layers": 2,
    "vocab_size": 200,
    "embedding_size": VOCABULARY,
    "max_sequence_length": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 25000.0,
    "mask_token_id": MASK,
}
_EXPERTS: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
_LLADA_MOE: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "expert_intermediate_size": 32,
    "dense_intermediate_size": 96,
    "qk_layernorm": True,
    "moe_router_score_function": "softmax",
}
_LLADA2: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 32,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "partial_rotary_factor": 0.5,
    "head_dim": 16,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 25000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 128}
_FAR = {
    **YARN,
    "original_max_position_embeddings": 16,
    "beta_fast": 24.0,
    "beta_slow": 2.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


@dataclass(frozen=True)
class Kind:
    """One sort of checkpoint.

    :param graph: llama.cpp's name for what computes it.
    :param family: where the config does not say it.
    """

    architecture: str
    model_type: str
    graph: str
    config: dict[str, Any] = field(default_factory=dict)
    family: str | None = None
    sizes: dict[str, Any] = field(default_factory=lambda: _SIZES)


KINDS: dict[str, Kind] = {
    "dream": Kind("DreamModel", "Dream", "dream"),
    "dream-tied": Kind("DreamModel", "Dream", "dream", {"tie_word_embeddings": True}),
    "llada": Kind("LLaDAModelLM", "llada", "llada", sizes=_LLADA),
    "illada": Kind("ILLaDAForCausalLM", "illada", "llama", {"tie_word_embeddings": True}),
    "diffullama": Kind("LlamaForCausalLM", "llama", "llama", {"head_dim": 8}, "diffullama"),
    "llama3-rotary": Kind("LlamaForCausalLM", "llama", "llama", {"rope_parameters": _LLAMA3}, "diffullama"),
    "linear-rotary": Kind(
        "SDARForCausalLM",
        "sdar",
        "qwen3",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 25000.0}},
    ),
    "yarn-rotary": Kind("DreamModel", "Dream", "dream", {"rope_parameters": YARN}),
    "nemotron_labs": Kind(
        "NemotronLabsDiffusionModel",
        "nemotron_labs_diffusion",
        "mistral3",
        {"dlm_paradigm": "bidirectional", "sliding_window": None, "rope_parameters": _FAR},
    ),
    "stable_diffcoder": Kind("StableDiffcoderForCausalLM", "llama", "llama"),
    "a2d-llama": Kind("A2DLlamaLMHeadModel", "a2d-llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "a2d-qwen2": Kind("A2DQwen2LMHeadModel", "a2d-qwen2", "qwen2"),
    "a2d-qwen3": Kind("A2DQwen3LMHeadModel", "a2d-qwen3", "qwen3", {"head_dim": 24, "tie_word_embeddings": True}),
    "fast_dllm_v2": Kind("Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen", "qwen2"),
    "open_dcoder": Kind("Qwen2ForCausalLM", "qwen2", "qwen2", {}, "open_dcoder"),
    "wedlm-qwen2": Kind("WeDLMForCausalLM", "wedlm", "qwen2"),
    "wedlm-qwen3": Kind("WeDLMForCausalLM", "wedlm", "qwen3", {"qk_norm": True, "head_dim": 24}),
    "sdar": Kind("SDARForCausalLM", "sdar", "qwen3", {"head_dim": 24}),
    "sdar_moe": Kind("SDARMoeForCausalLM", "sdar_moe", "qwen3moe", {**_EXPERTS, "head_dim": 24}),
    "rnd1": Kind("RND1LM", "rnd1", "rnd1", {**_EXPERTS, "head_dim": 24}),
    "llada_moe": Kind("LLaDAMoEModelLM", "llada", "llada-moe", _LLADA_MOE),
    "llada_moe-tied": Kind("LLaDAMoEModelLM", "llada", "llada-moe", {**_LLADA_MOE, "tie_word_embeddings": True}),
    "llada2": Kind("LLaDA2MoeModelLM", "llada2_moe", "bailingmoe2", _LLADA2),
    "llada2-all-groups": Kind("LLaDA2MoeModelLM", "llada2_moe", "bailingmoe2", {**_LLADA2, "topk_group": 4}),
    "llada2-wide-heads": Kind(
        "LLaDA2MoeModelLM",
        "llada2_moe",
        "glm4moe",
        {**_LLADA2, "head_dim": 24, "n_group": 1, "topk_group": 1, "num_shared_experts": 2, "partial_rotary_factor": 1},
    ),
}


def make(folder: Path, name: str, dtype: torch.dtype = torch.float32, **more: Any) -> Path:
    """A checkpoint's folder; weights are random, but the same for the same name.

    :param more: what its config says otherwise.
    """
    kind = KINDS[name]
    config = {**kind.sizes, **kind.config, "architectures": [kind.architecture], "model_type": kind.model_type, **more}
    layout = layout_of(config, name, kind.family)
    native: Any = layout.native(config)
    model: Any = native(native.config_class(**layout.config(config)))
    tensors = _random(model.state_dict(), set(model.all_tied_weights_keys or ()))
    own = OWN.get(layout.name, same)(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: tensor.to(dtype).contiguous() for key, tensor in own.items()}, folder / "model.safetensors")
    return folder


def _random(shapes: Tensors, tied: set[str]) -> Tensors:
    draw = torch.Generator().manual_seed(7)
    found = {}
    for name, tensor in shapes.items():
        if name in tied:
            continue
        values = torch.randn(tensor.shape, generator=draw)
        if "norm" in name:
            found[name] = 1 + 0.2 * values
        elif tensor.ndim == 1:
            found[name] = 0.1 * values
        else:
            found[name] = 0.8 * values / tensor.shape[-1] ** 0.5
    return found
