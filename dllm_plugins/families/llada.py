"""LLaDA-8B (Base, Instruct, 1.5; arXiv 2502.09992): a Llama whose rows see everything, under OLMo's names.

Source: ML-GSAI/LLaDA `generate.py` and the modelling file of the checkpoints; equal to
`LlamaForCausalLM` bit for bit in float32 (ours: tests/families/test_parity.py).
"""

import re
from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import Tensors
from dllm_plugins.families.layout import pick
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "llada"
_BLOCK = re.compile(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.(\w+)")
_INSIDE = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}
_OUTSIDE = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}


#: What ZHZisZZ/dllm (`dllm/utils/models.py`) and NeMo Automodel put in place of the shipped template.
TEMPLATE = (
    "<|startoftext|>{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def config(original: Config) -> dict[str, Any]:
    """OLMo's names to Llama's."""
    require(
        original,
        NAME,
        block_type=("llama",),
        activation_type=("silu",),
        layer_norm_type=("rms",),
        rope=(True,),
        alibi=(False, None),
        include_bias=(False, None),
        include_qkv_bias=(False, None),
        attention_layer_norm=(False, None),
        bias_for_layer_norm=(False, None),
        input_emb_norm=(False, None),
        scale_logits=(False, None),
        block_group_size=(1, None),
        multi_query_attention=(False, None),
        clip_qkv=(None,),
        residual_dropout=(0.0, None),
    )
    heads = original["n_heads"]
    return {
        "vocab_size": original.get("embedding_size") or original["vocab_size"],
        "hidden_size": original["d_model"],
        "intermediate_size": original.get("mlp_hidden_size") or original["mlp_ratio"] * original["d_model"],
        "num_hidden_layers": original["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": original.get("n_kv_heads") or heads,
        "max_position_embeddings": original["max_sequence_length"],
        "rms_norm_eps": original["rms_norm_eps"],
        "rope_theta": original["rope_theta"],
        "tie_word_embeddings": bool(original.get("weight_tying", False)),
        **pick(original, ("eos_token_id", "pad_token_id")),
    }


def tensors(stored: Tensors, _original: Config) -> Tensors:
    """OLMo's names to Llama's; `ff_out` is the head outside a block and the down projection inside."""
    found: Tensors = {}
    for name, tensor in stored.items():
        inside = _BLOCK.fullmatch(name)
        outside = name.removeprefix("model.transformer.").split(".")
        if inside and inside[2] in _INSIDE:
            found[f"model.layers.{inside[1]}.{_INSIDE[inside[2]]}.{inside[3]}"] = tensor
        elif name.startswith("model.transformer.") and len(outside) == 2 and outside[0] in _OUTSIDE:
            found[f"{_OUTSIDE[outside[0]]}.{outside[1]}"] = tensor
        else:
            found[name] = tensor
    return found


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"LLaDAModelLM"}),
    model_types=frozenset({"llada"}),
    native=always("LlamaForCausalLM"),
    classes="Llama",
    config=config,
    tensors=tensors,
    attention="bidirectional",
    shifted=False,
    checkpoints=("GSAI-ML/LLaDA-8B-Base", "GSAI-ML/LLaDA-8B-Instruct", "GSAI-ML/LLaDA-1.5"),
    modes={"diffusion": "llada"},
    samplers=("fast_dllm",),
    licence="MIT (1.5: see its page)",
    cases=("llada_dense", "fastdllm_v1", "fastdllm_factor"),
    verified="logits equal the reference's bit for bit",
    mask_id=126336,
    stop_ids=frozenset({126081, 126348}),
    chat_template=TEMPLATE,
    template_mark="<|start_header_id|>",
)
