"""Random checkpoints of three architectures, tiny or as deep and wide as SmolLM2-135M, with a tokenizer.

Drawn as those of :mod:`peers.models` are, and for the same reasons: greedy decoding has
something to say, and rounding rarely changes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gguf_bench.vocabulary import Vocabulary
from peers.models import CONTEXT
from peers.models import HEAD_SCALE
from peers.models import INSIDE
from peers.models import LLADA_INSIDE
from peers.models import SHARPNESS
from peers.models import SPECIAL_SCALE
from peers.models import written


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


SHAPES = {
    "tiny": Shape(vocabulary=512, width=64, inner=128, layers=3, heads=4, kv_heads=2),
    "135m": Shape(vocabulary=49_152, width=576, inner=1536, layers=30, heads=9, kv_heads=3),
}
ARCHITECTURES = ("dream", "llada", "sdar")


def layer(shape: Shape, architecture: str, generator: torch.Generator) -> dict[str, Tensor]:
    """One layer's weights by the names of :data:`peers.models.INSIDE` and `.bias` behind those of biases."""
    narrow = shape.head * shape.kv_heads
    small = (2 * shape.layers) ** -0.5

    def drawn(rows: int, columns: int, scale: float = 1.0) -> Tensor:
        found: Tensor = torch.randn(rows, columns, generator=generator) * (scale / columns**0.5)
        return found

    found = {
        "input_norm": torch.ones(shape.width),
        "inner_norm": torch.ones(shape.width),
        "q": drawn(shape.width, shape.width, SHARPNESS),
        "k": drawn(narrow, shape.width, SHARPNESS),
        "v": drawn(narrow, shape.width),
        "o": drawn(shape.width, shape.width, small),
        "gate": drawn(shape.inner, shape.width),
        "up": drawn(shape.inner, shape.width),
        "down": drawn(shape.width, shape.inner, small),
    }
    if architecture == "dream":
        found |= {f"{name}.bias": drawn(len(found[name]), 1, 0.1)[:, 0] for name in "qkv"}
    if architecture == "sdar":
        # Norms of heads undo the size of q and k, so the size is theirs here.
        found |= {name: torch.full((shape.head,), SHARPNESS) for name in ("q_norm", "k_norm")}
    return found


def embedding(vocabulary: Vocabulary, shape: Shape, generator: torch.Generator) -> Tensor:
    """[vocabulary, width], also the head; what is no word is never the likeliest."""
    found: Tensor = torch.randn(shape.vocabulary, shape.width, generator=generator)
    found[: vocabulary.words.start] *= SPECIAL_SCALE
    found[vocabulary.words.stop :] *= SPECIAL_SCALE
    return found


def tensors(shape: Shape, architecture: str, vocabulary: Vocabulary) -> dict[str, Tensor]:
    """All weights under the names that checkpoints of the architecture have, bfloat16."""
    generator = torch.Generator().manual_seed(0)
    llada = architecture == "llada"
    outside = ("model.transformer.wte", "model.transformer.ln_f") if llada else ("model.embed_tokens", "model.norm")
    inside, place = (LLADA_INSIDE, "model.transformer.blocks") if llada else (INSIDE, "model.layers")
    found = {
        f"{outside[0]}.weight": embedding(vocabulary, shape, generator),
        f"{outside[1]}.weight": torch.full((shape.width,), HEAD_SCALE),
    }
    for number in range(shape.layers):
        for name, tensor in layer(shape, architecture, generator).items():
            short, _, kind = name.partition(".")
            found[f"{place}.{number}.{inside[short]}.{kind or 'weight'}"] = tensor
    return {name: tensor.bfloat16() for name, tensor in found.items()}


def config(shape: Shape, architecture: str, vocabulary: Vocabulary) -> Mapping[str, Any]:
    """What config.json says."""
    special = {
        "mask_token_id": vocabulary.mask_id,
        "eos_token_id": vocabulary.end_id,
        "pad_token_id": vocabulary.end_id,
    }
    if architecture == "llada":
        return special | {
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
    dream = architecture == "dream"
    return special | {
        "architectures": ["DreamModel" if dream else "SDARForCausalLM"],
        "model_type": "Dream" if dream else "sdar",
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
        **({} if dream else {"head_dim": shape.head, "attention_bias": False}),
    }


def checkpoint(architecture: str, shape: Shape, folder: Path) -> Path:
    """A checkpoint in the hub's format, in an existing folder; returns it."""
    vocabulary = Vocabulary.of(shape.vocabulary)
    vocabulary.write(folder)
    return written(folder, config(shape, architecture, vocabulary), tensors(shape, architecture, vocabulary))


def weights_of(folder: Path) -> int:
    """Parameters of a checkpoint of one file."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
