"""The base model's folder, made without the libraries that transformers needs for a GGUF file."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers import AutoTokenizer

from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.unpack import unpack

#: Of what transformers 5.24 made of the file with `from_pretrained(gguf_file=...)`: all tensors, tokenizer.json and
#: the chat template.
TENSORS = "6f4bd9280ccfc81a646d45118db929b7ea839fdb24f8bf72bdc4edcb1c20ef4e"
TOKENIZER = "7ac55059a82b22649ba752d422d8a437a79c62ee85046d1605cac6e2bb954c42"
TEMPLATE = "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"
CONFIG = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 9.999999747378752e-06,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


@pytest.mark.slow
def test_it_is_what_transformers_makes_of_the_file(tmp_path: Path) -> None:
    """Every weight bit for bit, the tokenizer as it is written, and whatever the config says of how to compute."""
    require_base()
    ours = tmp_path / "ours"
    unpack(gguf_path(), ours)
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(ours / "model.safetensors").items()):
        assert tensor.dtype == torch.bfloat16
        digest.update(name.encode() + str(tuple(tensor.shape)).encode() + tensor.view(torch.int16).numpy().tobytes())
    assert digest.hexdigest() == TENSORS
    spelt = json.dumps(json.loads((ours / "tokenizer.json").read_text(encoding="utf-8")), sort_keys=True)
    assert hashlib.sha256(spelt.encode()).hexdigest() == TOKENIZER
    assert hashlib.sha256((ours / "chat_template.jinja").read_bytes()).hexdigest() == TEMPLATE
    config = AutoConfig.from_pretrained(ours).to_dict()
    assert {name: config[name] for name in CONFIG} == CONFIG
    tokenizer: Any = AutoTokenizer.from_pretrained(ours)
    special = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert special == ("<|im_start|>", "<|im_end|>", "<|im_end|>", "<|endoftext|>")
    assert tokenizer.chat_template
