"""The small transformer of the recipes that begin with random weights."""

from typing import Any
from typing import Protocol

import torch
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM


class Body(Protocol):
    """What a recipe says of it; heads share the width."""

    @property
    def width(self) -> int:
        """Of the hidden states."""

    @property
    def inner(self) -> int:
        """Of the gated layers."""

    @property
    def layers(self) -> int:
        """How many."""

    @property
    def heads(self) -> int:
        """Of attention, each with keys of its own."""

    @property
    def seed(self) -> int:
        """Of the weights."""


def config_of(body: Body, vocabulary: int, context: int) -> dict[str, Any]:
    """Its shape, in Qwen3's words; `context` in tokens."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": body.width,
        "intermediate_size": body.inner,
        "num_hidden_layers": body.layers,
        "num_attention_heads": body.heads,
        "num_key_value_heads": body.heads,
        "head_dim": body.width // body.heads,
        "hidden_act": "silu",
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


def random_model(body: Body, config: dict[str, Any]) -> Qwen3ForCausalLM:
    """One with random weights; the same seed gives the same ones, and no other draw is disturbed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(body.seed)
        return Qwen3ForCausalLM(Qwen3Config(**config, eos_token_id=None, bos_token_id=None))
