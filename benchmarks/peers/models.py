"""Random checkpoints of about 135 million weights, in the layouts that the peers and we both load.

As deep and wide as SmolLM2-135M, tied. Drawn so that greedy decoding has something to say:
queries and keys are large enough for every position to look somewhere else, a mask's own
embedding is small, so what a position says comes from where it looks; and what layers add
is small enough for float32 to keep the order of any two tokens through thirty of them.
Special ids have small embeddings, too, and are therefore never the likeliest.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

VOCABULARY, WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 49_152, 576, 1536, 30, 9, 3
CONTEXT = 2048
#: Positions denoised together.
BLOCK = 32
EOS, PAD, BOS, MASK = 0, 1, 2, VOCABULARY - 1
SPECIAL = (EOS, PAD, BOS, MASK)
#: Of queries and keys, of special ids and of logits, as multiples of what keeps a vector's length.
SHARPNESS, SPECIAL_SCALE, HEAD_SCALE = 1.5, 0.05, 0.3

_OUTSIDE = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight"}
INSIDE = {
    "input_norm": "input_layernorm",
    "inner_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
LLADA_INSIDE = {
    "input_norm": "attn_norm",
    "inner_norm": "ff_norm",
    "q": "q_proj",
    "k": "k_proj",
    "v": "v_proj",
    "o": "attn_out",
    "gate": "ff_proj",
    "up": "up_proj",
    "down": "ff_out",
}


def layer(generator: torch.Generator) -> dict[str, Tensor]:
    """One layer's weights by short names, float32."""
    narrow = WIDTH // HEADS * KV_HEADS

    def drawn(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        found: Tensor = torch.randn(rows, columns, generator=generator) * (scale / columns**0.5)
        return found

    small = (2 * LAYERS) ** -0.5
    return {
        "input_norm": torch.ones(WIDTH),
        "inner_norm": torch.ones(WIDTH),
        "q": drawn(WIDTH, WIDTH, SHARPNESS),
        "k": drawn(narrow, WIDTH, SHARPNESS),
        "v": drawn(narrow, WIDTH),
        "o": drawn(WIDTH, WIDTH, small),
        "gate": drawn(INNER, WIDTH),
        "up": drawn(INNER, WIDTH),
        "down": drawn(WIDTH, INNER, small),
    }


def embedding(generator: torch.Generator) -> Tensor:
    """[VOCABULARY, WIDTH], also the head."""
    found: Tensor = torch.randn(VOCABULARY, WIDTH, generator=generator)
    found[list(SPECIAL)] *= SPECIAL_SCALE
    return found


def qwen3_folder(folder: Path) -> Path:
    """A Qwen3 that sees both sides, as ZHZisZZ/dllm calls and stores it (`a2d-qwen3`)."""
    generator = torch.Generator().manual_seed(0)
    tensors = {_OUTSIDE["embedding"]: embedding(generator), _OUTSIDE["norm"]: torch.full((WIDTH,), HEAD_SCALE)}
    for number in range(LAYERS):
        # Norms of heads undo the size of q and k, so the size is theirs here.
        norms = {name: torch.full((WIDTH // HEADS,), SHARPNESS) for name in ("q_norm", "k_norm")}
        for name, tensor in (layer(generator) | norms).items():
            tensors[f"model.layers.{number}.{INSIDE[name]}.weight"] = tensor
    config = {
        "architectures": ["A2DQwen3LMHeadModel"],
        "model_type": "a2d-qwen3",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": WIDTH // HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
    }
    return written(folder, config, tensors)


def llada_folder(folder: Path) -> Path:
    """A LLaDA under its own tensor names."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "model.transformer.wte.weight": embedding(generator),
        "model.transformer.ln_f.weight": torch.full((WIDTH,), HEAD_SCALE),
    }
    for number in range(LAYERS):
        for name, tensor in layer(generator).items():
            tensors[f"model.transformer.blocks.{number}.{LLADA_INSIDE[name]}.weight"] = tensor
    config = {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "vocab_size": VOCABULARY,
        "embedding_size": VOCABULARY,
        "d_model": WIDTH,
        "mlp_hidden_size": INNER,
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "n_kv_heads": KV_HEADS,
        "max_sequence_length": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "weight_tying": True,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mask_token_id": MASK,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    return written(folder, config, tensors)


def written(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """The files of a checkpoint in an existing folder; returns it."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
