"""Tiny random bases of every shape that a tri-mode model may have, as folders, and denoisers for them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers import AutoModelForCausalLM

from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.low_rank import expected_tensors
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.files.replacing import read_config

from ..conftest import make_tokenizer

SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 259,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
#: What each says beside the sizes.
BASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama untied": {"model_type": "llama", "rope_parameters": LLAMA3},
    "llama biased": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}


def make_base(folder: Path, kind: str, seed: int = 0, **numbers: Any) -> Path:
    """A base of random weights, saved by transformers, with a tokenizer of bytes.

    :param numbers: of its config, in place of those of :data:`SIZES` and :data:`BASES`.
    """
    about = SIZES | BASES[kind] | numbers
    torch.manual_seed(seed)
    config = AutoConfig.for_model(**about)
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn_like(weight) * 0.3 + ("norm" in name))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_denoiser(path: Path, base: Path, /, **about: str) -> Path:
    """A file of random low-rank weights that fit a base.

    :param about: metadata beside the format.
    """
    shape = LlamaShape.from_config(read_config(base))
    noise = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(size, generator=noise) * 0.2 for name, size in expected_tensors(shape, 4, 12).items()}
    save_file(tensors, path, metadata={"format": FORMAT, **about})
    return path
