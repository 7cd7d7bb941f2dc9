"""Random checkpoints of about 135 million weights, in the layouts that the peers and we both load.

As deep and wide as SmolLM2-135M, tied. Drawn so that greedy decoding has something to say:
queries and keys are large enough for every position to look somewhere else, a mask's own
embedding is small, so what a position says comes from where it looks; and what layers add
is small enough for float32 to keep the order of any two tokens through thirty of them.
Special ids have small embeddings, too, and are therefore never the likeliest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a model."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads


#: SmolLM2-135M's.
SHAPE = Shape(vocabulary=49_152, width=576, inner=1536, layers=30, heads=9, kv_heads=3)
CONTEXT = 2048
#: Positions denoised together.
BLOCK = 32
EOS, PAD, BOS, MASK = 0, 1, 2, SHAPE.vocabulary - 1
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


def layer(shape: Shape, generator: torch.Generator, *, norms: bool = False) -> dict[str, Tensor]:
    """One layer's weights by short names, float32.

    :param norms: of query and key heads; they undo the size of q and k, so the size is theirs.
    """
    narrow = shape.head * shape.kv_heads
    small = (2 * shape.layers) ** -0.5
    found = {
        "input_norm": torch.ones(shape.width),
        "inner_norm": torch.ones(shape.width),
        "q": drawn(generator, shape.width, shape.width, SHARPNESS),
        "k": drawn(generator, narrow, shape.width, SHARPNESS),
        "v": drawn(generator, narrow, shape.width),
        "o": drawn(generator, shape.width, shape.width, small),
        "gate": drawn(generator, shape.inner, shape.width),
        "up": drawn(generator, shape.inner, shape.width),
        "down": drawn(generator, shape.width, shape.inner, small),
    }
    return found | ({name: torch.full((shape.head,), SHARPNESS) for name in ("q_norm", "k_norm")} if norms else {})


def drawn(generator: torch.Generator, rows: int, columns: int, scale: float = 1.0) -> Tensor:
    """A matrix that keeps a vector's length, times `scale`."""
    found: Tensor = torch.randn(rows, columns, generator=generator) * (scale / columns**0.5)
    return found


def embedding(generator: torch.Generator) -> Tensor:
    """[vocabulary, width], also the head."""
    found: Tensor = torch.randn(SHAPE.vocabulary, SHAPE.width, generator=generator)
    found[list(SPECIAL)] *= SPECIAL_SCALE
    return found


def qwen_config(shape: Shape, architecture: str, model_type: str) -> dict[str, Any]:
    """config.json of a Qwen without its special ids."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": True,
    }


def llada_config(shape: Shape) -> dict[str, Any]:
    """config.json of a LLaDA without its special ids."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "vocab_size": shape.vocabulary,
        "embedding_size": shape.vocabulary,
        "d_model": shape.width,
        "mlp_hidden_size": shape.inner,
        "n_layers": shape.layers,
        "n_heads": shape.heads,
        "n_kv_heads": shape.kv_heads,
        "max_sequence_length": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "weight_tying": True,
    }


def qwen3_folder(folder: Path) -> Path:
    """A Qwen3 that sees both sides, as ZHZisZZ/dllm calls and stores it (`a2d-qwen3`)."""
    generator, shape = torch.Generator().manual_seed(0), SHAPE
    tensors = {_OUTSIDE["embedding"]: embedding(generator), _OUTSIDE["norm"]: torch.full((shape.width,), HEAD_SCALE)}
    for number in range(shape.layers):
        for name, tensor in layer(shape, generator, norms=True).items():
            tensors[f"model.layers.{number}.{INSIDE[name]}.weight"] = tensor
    config = qwen_config(shape, "A2DQwen3LMHeadModel", "a2d-qwen3") | {"head_dim": shape.head}
    return written(folder, config | {"eos_token_id": EOS, "pad_token_id": PAD, "bos_token_id": BOS}, tensors)


def llada_folder(folder: Path) -> Path:
    """A LLaDA under its own tensor names."""
    generator, shape = torch.Generator().manual_seed(0), SHAPE
    tensors = {
        "model.transformer.wte.weight": embedding(generator),
        "model.transformer.ln_f.weight": torch.full((shape.width,), HEAD_SCALE),
    }
    for number in range(shape.layers):
        for name, tensor in layer(shape, generator).items():
            tensors[f"model.transformer.blocks.{number}.{LLADA_INSIDE[name]}.weight"] = tensor
    dropout = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0)
    special = {"mask_token_id": MASK, "eos_token_id": EOS, "pad_token_id": PAD}
    return written(folder, llada_config(shape) | dropout | special, tensors)


def written(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """The files of a checkpoint in an existing folder; returns it."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
