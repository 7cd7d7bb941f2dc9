"""Every number of the recipe, and the model it trains."""

from dataclasses import dataclass
from typing import Any

from transformers import Qwen3ForCausalLM

from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import VOCABULARY
from dllm_plugins.training.body import config_of
from dllm_plugins.training.body import random_model


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
    return config_of(recipe, len(VOCABULARY), 2 * CELLS)


def new_model(recipe: BlockRecipe) -> Qwen3ForCausalLM:
    """A model with random weights; see :func:`random_model`."""
    return random_model(recipe, model_config(recipe))
