"""Random checkpoints of three architectures, tiny or as deep and wide as SmolLM2-135M, with a tokenizer.

Drawn as those of :mod:`peers.models` are, and for the same reasons: greedy decoding has
something to say, and rounding rarely changes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gguf_bench.vocabulary import Vocabulary
from peers import models
from peers.models import HEAD_SCALE
from peers.models import INSIDE
from peers.models import LLADA_INSIDE
from peers.models import SPECIAL_SCALE
from peers.models import Shape
from peers.models import written

SHAPES = {
    "tiny": Shape(vocabulary=512, width=64, inner=128, layers=3, heads=4, kv_heads=2),
    "135m": models.SHAPE,
}
ARCHITECTURES = ("dream", "llada", "sdar")


def layer(shape: Shape, architecture: str, generator: torch.Generator) -> dict[str, Tensor]:
    """One layer's weights by the names of :data:`peers.models.INSIDE` and `.bias` behind those of biases."""
    found = models.layer(shape, generator, norms=architecture == "sdar")
    if architecture == "dream":
        found |= {f"{name}.bias": models.drawn(generator, len(found[name]), 1, 0.1)[:, 0] for name in "qkv"}
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
        return special | models.llada_config(shape)
    if architecture == "dream":
        return special | models.qwen_config(shape, "DreamModel", "Dream")
    own = {"head_dim": shape.head, "attention_bias": False}
    return special | models.qwen_config(shape, "SDARForCausalLM", "sdar") | own


def checkpoint(architecture: str, shape: Shape, folder: Path) -> Path:
    """A checkpoint in the hub's format, in an existing folder; returns it."""
    vocabulary = Vocabulary.of(shape.vocabulary)
    vocabulary.write(folder)
    return written(folder, config(shape, architecture, vocabulary), tensors(shape, architecture, vocabulary))


def weights_of(folder: Path) -> int:
    """Parameters of a checkpoint of one file."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        return sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
