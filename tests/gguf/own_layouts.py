"""Tensors of transformers' classes back in the layouts that families store them in."""

import re
from collections.abc import Callable

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


def same(tensors: Tensors) -> Tensors:
    return tensors


def _one_by_one(tensors: Tensors) -> Tensors:
    """Experts as most checkpoints have them."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".experts.")
        for expert, one in enumerate(tensor if prefix else ()):
            if last == "gate_up_proj":
                gate, up = one.chunk(2)
                found[f"{prefix}.experts.{expert}.gate_proj.weight"] = gate
                found[f"{prefix}.experts.{expert}.up_proj.weight"] = up
            else:
                found[f"{prefix}.experts.{expert}.down_proj.weight"] = one
        if not prefix:
            found[name] = tensor
    return found


_OLMO = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
_OLMO_OUTSIDE = {"model.embed_tokens": "wte", "model.norm": "ln_f", "lm_head": "ff_out"}


def _olmo(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in tensors.items():
        place, last = name.rsplit(".", 1)
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", place)
        inside = f"blocks.{layer[1]}.{_OLMO[layer[2]]}" if layer else _OLMO_OUTSIDE[place]
        found[f"model.transformer.{inside}.{last}"] = tensor
    return found


_BAILING = {
    ".self_attn.o_proj.": ".attention.dense.",
    ".self_attn.q_norm.": ".attention.query_layernorm.",
    ".self_attn.k_norm.": ".attention.key_layernorm.",
    "model.embed_tokens.": "model.word_embeddings.",
    ".mlp.gate.e_score_correction_bias": ".mlp.gate.expert_bias",
}


def _bailing(tensors: Tensors) -> Tensors:
    found: Tensors = {}
    for name, tensor in _one_by_one(tensors).items():
        if ".self_attn.q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            found[name.replace(".self_attn.q_proj.", ".attention.query_key_value.")] = torch.cat(parts)
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            for new, old in _BAILING.items():
                name = name.replace(new, old)  # noqa: PLW2901
            found[name] = tensor
    return found


def _nemotron(tensors: Tensors) -> Tensors:
    return {
        name.replace("model.", "encoder.", 1).replace("lm_head.", "diffusion_head."): tensor
        for name, tensor in tensors.items()
    }


OWN: dict[str, Callable[[Tensors], Tensors]] = {
    "llada": _olmo,
    "llada2": _bailing,
    "nemotron_labs": _nemotron,
    "rnd1": _one_by_one,
    "llada_moe": _one_by_one,
}
