"""LLaDA2.0, 2.1 and 2.2 (arXiv 2512.15745): Glm4Moe under block-causal attention, blocks of 32 from position 0.

Source: `LLaDA2MoeModelLM` (copies in ZHZisZZ/dllm), equal to `Glm4MoeForCausalLM` within
3e-7. 2.0 and 2.1 have the same config: the checkpoint's name says which sampler is right.
2.2 admits experts by block (`expert_capacity`), which Glm4Moe does not: refused.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import Tensors
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "llada2"
_PARTS = {
    ".attention.dense.": ".self_attn.o_proj.",
    ".attention.query_layernorm.": ".self_attn.q_norm.",
    ".attention.key_layernorm.": ".self_attn.k_norm.",
    "model.word_embeddings.": "model.embed_tokens.",
    ".mlp.gate.expert_bias": ".mlp.gate.e_score_correction_bias",
}
_FUSED = ".attention.query_key_value."


def config(original: Config) -> dict[str, Any]:
    """Bailing's names to Glm4Moe's; router weights are always normalised."""
    require(
        original,
        NAME,
        score_function=("sigmoid", None),
        moe_router_enable_expert_bias=(True, None),
        use_bias=(False, None),
        use_qkv_bias=(False, None),
        use_rmsnorm=(True, None),
        norm_head=(False, None),
        norm_softmax=(False, None),
        using_split_qkv_in_self_attention=(False, None),
        expert_capacity=(None,),
        hidden_act=("silu",),
    )
    rotary = {
        "rope_type": "default",
        "rope_theta": original["rope_theta"],
        "partial_rotary_factor": original.get("partial_rotary_factor", 1.0),
    }
    found = common_config(original, NAME, "moe_intermediate_size", "num_experts_per_tok", "first_k_dense_replace")
    found.pop("rope_theta")
    more = {name: original[name] for name in ("n_group", "topk_group", "routed_scaling_factor")}
    return {
        **found,
        **more,
        "rope_parameters": rotary,
        "n_routed_experts": original["num_experts"],
        "n_shared_experts": original["num_shared_experts"],
        "norm_topk_prob": True,
        "use_qk_norm": True,
        "attention_bias": False,
    }


def tensors(stored: Tensors, original: Config) -> Tensors:
    """Bailing's names to Glm4Moe's, the fused projection split by rows."""
    size = int(original.get("head_dim") or original["hidden_size"] // original["num_attention_heads"])
    rows = [size * int(original[name]) for name in ("num_attention_heads", *["num_key_value_heads"] * 2)]
    found: Tensors = {}
    for name, tensor in stored.items():
        if _FUSED in name and len(tensor) == sum(rows):
            for part, piece in zip("qkv", tensor.split(rows), strict=True):
                found[name.replace(_FUSED, f".self_attn.{part}_proj.")] = piece
            continue
        found[_renamed(name)] = tensor
    return found


def _renamed(name: str) -> str:
    for old, new in _PARTS.items():
        name = name.replace(old, new)
    return name


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"LLaDA2MoeModelLM"}),
    model_types=frozenset({"llada2_moe", "llada2_moe_veomni"}),
    native=always("Glm4MoeForCausalLM"),
    classes="Glm4Moe",
    config=config,
    tensors=tensors,
    attention="block-causal",
    shifted=False,
    checkpoints=(
        "inclusionAI/LLaDA2.0-mini",
        "inclusionAI/LLaDA2.0-flash",
        "inclusionAI/LLaDA2.1-mini",
        "inclusionAI/LLaDA2.1-flash",
    ),
    licence="Apache-2.0",
    cases=("llada2_0", "llada2_1", "llada2_2_indel"),
    verified="logits equal the reference's within 1e-4",
    samplers=("llada2.0", "llada2.1", "llada2.2"),
    hints={"llada2.0": "llada2.0", "llada2.1": "llada2.1", "llada2.2": "llada2.2"},
    mask_id=156895,
    stop_ids=frozenset({156892}),
)
