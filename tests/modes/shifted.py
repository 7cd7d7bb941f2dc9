"""Tiny models with random weights for the samplers of the shifted families, and requests to them."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config
from transformers import Qwen2ForCausalLM
from transformers import Qwen3MoeConfig
from transformers import Qwen3MoeForCausalLM

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
    "eos_token_id": 60,
    "pad_token_id": 59,
    "tie_word_embeddings": False,
}
MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "head_dim": 8,
}
MASK, EXPAND, EOS, PAD = 62, 61, 60, 59
KINDS = {
    "dream": ("DreamModel", "Dream"),
    "open_dcoder": ("Qwen2ForCausalLM", "qwen2"),
    "rnd1": ("RND1LM", "rnd1"),
}
#: A sampler and options that sample, by name.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dream": ("dream", {"alg": "entropy"}),
    "dream origin": ("dream", {"alg": "origin"}),
    "dream drawn order": ("dream", {"alg": "maskgit_plus", "alg_temp": 0.5}),
    "dreamon": ("dreamon", {"alg": "topk_margin", "expand_token_id": EXPAND}),
    "p2": ("open_dcoder", {"alg": "p2"}),
    "open_dcoder": ("open_dcoder", {"alg": "topk_margin", "alg_temp": 0.3}),
    "rnd1": ("rnd1", {}),
    "entropy bound": ("rnd1", {"eb_gamma": 0.5}),
}


def write(kind: str, position: Path) -> None:
    """Random weights in the family's own layout."""
    torch.manual_seed(1)
    network: Any = (
        Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **MOE))
        if kind == "rnd1"
        else Qwen2ForCausalLM(Qwen2Config(**SIZES))
    )
    network.save_pretrained(position)
    architecture, model_type = KINDS[kind]
    config = SIZES | {"architectures": [architecture], "model_type": model_type, "hidden_act": "silu"}
    config |= {"rope_theta": 10000.0, "rms_norm_eps": 1e-6, "mask_token_id": MASK} | (MOE if kind == "rnd1" else {})
    (position / "config.json").write_text(json.dumps(config))
    (position / "generation_config.json").unlink(missing_ok=True)


@cache
def load(sampler: str) -> Model:
    """The model behind a sampler; DreamOn's is Dream's."""
    if sampler == "dreamon":
        return load("dream")
    with TemporaryDirectory() as position:
        write(sampler, Path(position))
        family = sampler if sampler == "open_dcoder" else None
        return load_model(position, dtype="float32", device="cpu", family=family)


def request(name: str, tokens: list[int], suffix: tuple[int, ...] = (), **options: Any) -> Request:
    """Of a named sampler; stop ids do not end it."""
    mode, own = SAMPLERS[name]
    own = own | options.pop("own", {})
    return Request(
        tokens, SamplingConfig(mode=mode, preset_options=own, **options), stop_ids=frozenset(), suffix=suffix
    )


def generate(model: Model, *requests: Request) -> list[Finish]:
    """All of them together."""
    return model.engine().generate(requests)


def canvases(model: Model, asked: Request) -> list[list[int | None]]:
    """The answer and what stands behind it, after every pass."""
    engine = model.engine()
    known: list[int | None] = []
    found: list[list[int | None]] = []
    for event in engine.stream(asked):
        if isinstance(event, Commit):
            known += event.tokens
        elif isinstance(event, Draft):
            found.append([*known, *event.tokens])
        else:
            found.append([*event.tokens, *event.rest])
    return found


def prefer(monkeypatch: pytest.MonkeyPatch, model: Model, token: int, bonus: float = 50.0) -> None:
    """Make the model all but sure of one token everywhere."""
    original = model.denoiser.logits

    def logits(hidden: Tensor, left: Tensor | None = None) -> Tensor:
        found = original(hidden, left).clone()
        found[:, token] += bonus
        return found

    monkeypatch.setattr(model.denoiser, "logits", logits)
