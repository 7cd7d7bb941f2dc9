"""LLaDA-MoE-7B-A1B: Qwen3-MoE whose rows see everything; router weights are not renormalised.

Source: inclusionAI's modelling file (copy in ZHZisZZ/dllm), equal to
`Qwen3MoeForCausalLM(norm_topk_prob=False)` within 5e-7. Its model_type is LLaDA-8B's
(`llada`), so the architecture decides.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "llada_moe"


def config(original: Config) -> dict[str, Any]:
    """The names of the expert sizes differ; switches the class does not have are refused."""
    require(
        original,
        NAME,
        qk_layernorm=(True,),
        attention_bias=(False, None),
        clip_qkv=(None,),
        partial_rotary_factor=(1, 1.0, None),
        shared_expert_intermediate_size=(None, 0),
        moe_router_score_function=("softmax", None),
        moe_router_enable_expert_bias=(False, None),
        router_num_group=(None,),
        router_topk_group=(None,),
        routed_scaling_factor=(1, 1.0, None),
        norm_topk_prob=(None, False),
        moe_layer_freq=(None, [1] * int(original.get("num_hidden_layers", 0))),
    )
    found = common_config(original, NAME, "num_experts", "num_experts_per_tok")
    found.pop("intermediate_size", None)
    return {
        **found,
        "head_dim": original["hidden_size"] // original["num_attention_heads"],
        "moe_intermediate_size": original["expert_intermediate_size"],
        "intermediate_size": original["dense_intermediate_size"],
        "norm_topk_prob": False,
        "mlp_only_layers": [],
        "decoder_sparse_step": 1,
    }


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"LLaDAMoEModelLM"}),
    model_types=frozenset({"llada", "lladamoe"}),
    native=always("Qwen3MoeForCausalLM"),
    classes="Qwen3Moe",
    config=config,
    attention="bidirectional",
    shifted=False,
    checkpoints=("inclusionAI/LLaDA-MoE-7B-A1B-Base", "inclusionAI/LLaDA-MoE-7B-A1B-Instruct"),
    modes={"diffusion": "llada"},
    samplers=("fast_dllm",),
    licence="see the checkpoint's page",
    cases=("llada_moe",),
    verified="logits equal the reference's within 1e-4",
    mask_id=156895,
)
