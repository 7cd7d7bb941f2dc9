"""Tiny random tri-mode models of a shape of their own, in torch and on llama.cpp."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from dllm_plugins.default_model.load import make_spec
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.llama_cpp.tri_mode import LlamaTriModeDenoiser
from dllm_plugins.models import Model
from dllm_plugins.models import load_model

#: Heads are together wider than the model, and three of them share a key.
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "num_hidden_layers": 3,
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 160,
    "vocab_size": 320,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "rope_theta": 25000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RANK, INNER = 5, 40
SAMPLING: list[dict[str, Any]] = [{}, {"temperature": 0.9, "seed": 5}, {"temperature": 1.2, "seed": 6, "top_p": 0.7}]
PROMPTS = ([1, 40, 41, 42], [1, 77], [1, *range(30, 60)], [5])


@dataclass(frozen=True)
class Files:
    """A base folder and the file of its denoiser."""

    folder: Path
    denoiser: Path

    @property
    def shape(self) -> LlamaShape:
        """Of the base."""
        return LlamaShape.from_config(CONFIG)

    def low_rank(self, dtype: torch.dtype = torch.float32) -> LowRankWeights:
        """The denoiser's weights."""
        return load_low_rank(self.denoiser, self.shape, dtype)

    def torch(self) -> TriModeDenoiser:
        """The model in float32."""
        base = load_llama(self.folder, torch.float32)
        return TriModeDenoiser(base, self.low_rank(), make_spec(self.shape, frozenset({2})), plain=True)

    def load(self, backend: str, **options: Any) -> Model:
        """The model on a backend."""
        place: dict[str, Any] = {"base": self.folder, "denoiser": self.denoiser}
        return load_model("dllm", backend=backend, **{"dtype": "float32"} | options, **place)

    def llama(self, **options: Any) -> LlamaTriModeDenoiser:
        """Its denoiser on llama.cpp."""
        found = self.load("llama_cpp", **options).denoiser
        assert isinstance(found, LlamaTriModeDenoiser)
        return found


def write(folder: Path, tiny_folder: Path, seed: int = 3) -> Files:
    """Random weights; norms are random, too. The tokenizer is the other tiny model's."""
    generator = torch.Generator().manual_seed(seed)
    shape = LlamaShape.from_config(CONFIG)
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator) * 0.15

    matrices = {
        "self_attn.q_proj": (query, shape.hidden),
        "self_attn.k_proj": (key, shape.hidden),
        "self_attn.v_proj": (key, shape.hidden),
        "self_attn.o_proj": (shape.hidden, query),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }
    base = {"model.embed_tokens.weight": normal(shape.vocabulary, shape.hidden) * 3}
    base["model.norm.weight"] = 1 + normal(shape.hidden)
    own = {"mask_embedding": normal(shape.hidden), "chain.down": normal(INNER, 3 * shape.hidden)}
    own["chain.up"] = normal(shape.hidden, INNER)
    own["draft_tokens"] = torch.arange(3, shape.vocabulary, 2, dtype=torch.int32)
    sizes = {
        "qkv": (shape.hidden, query + 2 * key),
        "out": (query, shape.hidden),
        "gate_up": (shape.hidden, 2 * shape.intermediate),
        "down": (shape.intermediate, shape.hidden),
    }
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        base |= {f"{prefix}{name}.weight": normal(*size) for name, size in matrices.items()}
        base[f"{prefix}input_layernorm.weight"] = 1 + normal(shape.hidden)
        base[f"{prefix}post_attention_layernorm.weight"] = 1 + normal(shape.hidden)
        for name, (inner, outer) in sizes.items():
            own[f"layers.{layer}.{name}.down"] = normal(RANK, inner)
            own[f"layers.{layer}.{name}.up"] = normal(outer, RANK)
    place = folder / "base"
    place.mkdir(parents=True, exist_ok=True)
    save_file(base, place / "model.safetensors", metadata={"format": "pt"})
    (place / "config.json").write_text(json.dumps(CONFIG))
    for path in tiny_folder.glob("tokenizer*"):
        shutil.copy(path, place)
    denoiser = folder / "denoiser.safetensors"
    save_file(own, denoiser, metadata={"format": FORMAT, "rank": str(RANK)})
    return Files(place, denoiser)


def clean(row: int, tokens: list[int], begin: int) -> Segment:
    """Tokens behind `begin` frozen ones; all their rows are wanted."""
    return Segment(row, tokens, range(begin, begin + len(tokens)), wanted=range(len(tokens)))


def opened(row: int, mask: int, positions: list[int], behind: tuple[tuple[int, int], ...] = ()) -> Segment:
    """Open rows at these rotary positions."""
    return Segment(row, [mask] * len(positions), positions, True, False, behind, range(len(positions)))


def prefixed(denoiser: Denoiser, length: int) -> int:
    """A row with a frozen prefix."""
    row = denoiser.open_row()
    denoiser.forward([clean(row, [3 + 7 * place % 250 for place in range(length)], 0)])
    denoiser.freeze(row, length)
    return row
