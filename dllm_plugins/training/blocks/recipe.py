"""Every number of the recipe, and the model it trains."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import VOCABULARY


@dataclass(frozen=True, slots=True)
class BlockRecipe:
    """Sizes, steps and rates. The learning rate warms up, then falls along a cosine to 0 at `steps`."""

    steps: int = 4000
    seed: int = 0
    batch: int = 96
    block_length: int = 8
    width: int = 128
    inner: int = 256
    layers: int = 4
    heads: int = 4
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    log_every: int = 50
    save_every: int = 250


def model_config(recipe: BlockRecipe) -> dict[str, Any]:
    """The shape of the model, in Qwen3's words. A board and its solution fill the context, so an answer ends by itself."""
    return {
        "vocab_size": len(VOCABULARY),
        "hidden_size": recipe.width,
        "intermediate_size": recipe.inner,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "head_dim": recipe.width // recipe.heads,
        "hidden_act": "silu",
        "max_position_embeddings": 2 * CELLS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


def new_model(recipe: BlockRecipe) -> Qwen3ForCausalLM:
    """A model with random weights; the same seed gives the same ones, and no other draw is disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Qwen3ForCausalLM(Qwen3Config(**model_config(recipe), eos_token_id=None, bos_token_id=None))
