"""Which of llama.cpp's graphs computes a checkpoint, and the metadata it reads.

Each entry was read in llama.cpp 0c1e57098, src/models/*.cpp (tensors and graph) and
`llama_model_base::load_hparams`, and compared with the class of transformers that the
family loads into; tests/gguf/test_convert.py compares logits. What a graph does not
compute is refused here, before anything is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.messages import message

Metadata = dict[str, Any]

_ATTENTION = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
}
_QKV_BIAS = {f"self_attn.{part}_proj.bias": f"attn_{part}.bias" for part in "qkv"}
_QK_NORM = {f"self_attn.{part}_norm.weight": f"attn_{part}_norm.weight" for part in "qk"}
_FFN = {f"mlp.{part}_proj.weight": f"ffn_{part}.weight" for part in ("gate", "up", "down")}
_FFN_BIAS = {f"mlp.{part}_proj.bias": f"ffn_{part}.bias" for part in ("gate", "up", "down")}
_ROUTER = {"mlp.gate.weight": "ffn_gate_inp.weight"}
_EXPERTS = {f"mlp.experts.{part}_proj": f"ffn_{part}_exps.weight" for part in ("gate", "up", "down")}
_SHARED = {f"mlp.shared_experts.{part}_proj.weight": f"ffn_{part}_shexp.weight" for part in ("gate", "up", "down")}
_CHOICE = {"mlp.gate.e_score_correction_bias": "exp_probs_b.bias"}

_LLAMA = _ATTENTION | _QKV_BIAS | _FFN
_QWEN3_MOE = _ATTENTION | _QK_NORM | _QKV_BIAS | _ROUTER | _EXPERTS
_GLM = _ATTENTION | _QK_NORM | _FFN | _ROUTER | _EXPERTS | _SHARED | _CHOICE


@dataclass(frozen=True, slots=True)
class Architecture:
    """One of llama.cpp's graphs.

    :param name: `general.architecture`.
    :param computes: the class of transformers that does the same, without its `ForCausalLM`.
    :param layer: a layer's tensors: name in transformers' class to name in the file; experts
        without their number.
    :param family: whose graph it is: llama.cpp's own of diffusion models see the whole canvas and keep nothing.
    :param permuted: rotates neighbouring pairs, so rows of query and key change places.
    :param square: takes heads times head size to be the width.
    :param partial: can rotate a part of each head.
    :param factors: can divide the rotary frequencies one by one.
    :param tempered: reads how fast YaRN's parts change, and scales queries at far positions.
    :param own_head: needs `output.weight`, also where it is the embedding.
    :param fused: query, key and value are one tensor.
    :param renormalised: whether the weights of the chosen experts are made to sum to one; None
        where a key says it, or there are no experts.
    """

    name: str
    computes: str
    layer: Mapping[str, str]
    family: str | None = None
    permuted: bool = False
    square: bool = False
    partial: bool = False
    factors: bool = False
    tempered: bool = False
    own_head: bool = False
    fused: bool = False
    renormalised: bool | None = None


_ARCHITECTURES = (
    Architecture(
        "llama",
        "Llama",
        _LLAMA | _FFN_BIAS | {"self_attn.o_proj.bias": "attn_output.bias"},
        permuted=True,
        factors=True,
    ),
    Architecture("llada", "Llama", _LLAMA, family="llada", permuted=True),
    Architecture("mistral3", "Ministral3", _LLAMA, permuted=True, tempered=True),
    Architecture("qwen2", "Qwen2", _LLAMA, square=True),
    Architecture("dream", "Qwen2", _LLAMA, family="dream", square=True),
    Architecture("qwen3", "Qwen3", _LLAMA | _QK_NORM),
    Architecture("qwen3moe", "Qwen3Moe", _QWEN3_MOE, renormalised=True),
    Architecture("rnd1", "Qwen3Moe", _QWEN3_MOE, family="rnd1", renormalised=True),
    Architecture(
        "llada-moe", "Qwen3Moe", _QWEN3_MOE, family="llada_moe", square=True, own_head=True, renormalised=False
    ),
    Architecture("bailingmoe2", "Glm4Moe", _GLM, square=True, partial=True, own_head=True, fused=True),
    Architecture(
        "glm4moe", "Glm4Moe", _GLM | {"post_attention_layernorm.weight": "post_attention_norm.weight"}, partial=True
    ),
)
ARCHITECTURES = {item.name: item for item in _ARCHITECTURES}
_OF_FAMILY = {item.family: item.name for item in _ARCHITECTURES if item.family}
_OF_CLASS = {f"{item.computes}ForCausalLM": item.name for item in _ARCHITECTURES if not item.family}


def architecture_of(checkpoint: Checkpoint) -> Architecture:
    """The graph for a checkpoint.

    :raises CheckpointError: if there is none, or none that computes this config; with the reason.
    """
    native = checkpoint.layout.native(checkpoint.config).__name__
    name = _OF_FAMILY.get(checkpoint.layout.name) or _OF_CLASS.get(native)
    if native == "Glm4MoeForCausalLM":
        # bailingmoe2 is made for these checkpoints, but takes a fused projection of the model's width.
        name = "bailingmoe2" if is_square(checkpoint.native_config) else "glm4moe"
    if name is None:
        raise CheckpointError(
            message(
                "{} is a {} ({}), which no graph of llama.cpp is known to compute; use {backend}='torch'",
                checkpoint.folder,
                native,
                checkpoint.layout.name,
            )
        )
    found = ARCHITECTURES[name]
    _check(checkpoint, checkpoint.native_config, found)
    return found


def head_size(config: Any) -> int:
    """Width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def is_square(config: Any) -> bool:
    """Whether all heads together are as wide as the model."""
    return bool(head_size(config) * config.num_attention_heads == config.hidden_size)


def _check(checkpoint: Checkpoint, config: Any, found: Architecture) -> None:
    """Refuse what the graph does not compute."""
    layers = set(getattr(config, "layer_types", None) or ())
    router = getattr(config, "norm_topk_prob", None)
    dense = getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1
    reasons = {
        f"hidden_act={config.hidden_act!r}": config.hidden_act != "silu",
        f"layers of {sorted(layers)}": bool(layers - {"full_attention"}),
        f"{config.num_attention_heads} heads of {head_size(config)} in a width of {config.hidden_size}": (
            found.square and not is_square(config)
        ),
        f"norm_topk_prob={router!r}": found.renormalised is not None and bool(router) != found.renormalised,
        "layers without experts among those with": bool(found.renormalised is not None and dense),
    }
    graph = f"llama.cpp's {found.name!r}"
    for what, refused in reasons.items():
        if refused:
            raise CheckpointError(
                message("{}: {} does not compute {}; use {backend}='torch'", checkpoint.folder, graph, what)
            )


def describe(config: Any, found: Architecture) -> Metadata:
    """The keys of a config that its graph reads, without the rotary embedding's.

    :param config: of transformers' class.
    """
    size = head_size(config)
    keys: Metadata = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": size,
        "attention.value_length": size,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    if "mlp.gate.weight" in found.layer:
        keys |= _experts(config)
    return {f"{found.name}.{key}": value for key, value in keys.items()}


def _experts(config: Any) -> Metadata:
    keys: Metadata = {
        "expert_count": getattr(config, "n_routed_experts", None) or config.num_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_feed_forward_length": config.moe_intermediate_size,
    }
    if not hasattr(config, "n_routed_experts"):
        return keys
    keys |= {
        "leading_dense_block_count": config.first_k_dense_replace,
        "expert_shared_count": config.n_shared_experts,
        "expert_weights_scale": float(config.routed_scaling_factor),
        "expert_weights_norm": bool(config.norm_topk_prob),
        "expert_gating_func": 2,  # sigmoid
    }
    # Choosing among all groups is choosing among all experts, which is what llama.cpp does without groups.
    if 1 < config.n_group != config.topk_group:
        keys |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return keys
