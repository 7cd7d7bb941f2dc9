"""Fixtures: drafters on disk, of the tiny model's tokenizer and of another one."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers
from transformers import PreTrainedTokenizerFast
from transformers import Qwen3Config
from transformers import Qwen3ForCausalLM

from dllm_plugins.pairs import named

from ..conftest import make_tokenizer

#: What the other tokenizer has learnt to write in one token.
WORDS = ["the sky is blue and the sea is green", "how are you, and why is the sky blue?"]


def other_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs of its own, so that hardly any id means the same."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["[end]", "[mask]"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(WORDS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[end]", mask_token="[mask]")


def save_sdar(folder: Path, tokenizer: PreTrainedTokenizerFast, mask_id: int) -> Path:
    """A random SDAR: block-causal, four positions a block."""
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    network = Qwen3ForCausalLM(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    told |= {"architectures": ["SDARForCausalLM"], "model_type": "sdar", "mask_token_id": mask_id, "block_size": 4}
    (folder / "config.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="session")
def drafter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drafter with the tiny model's tokens, and a mask."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    return save_sdar(tmp_path_factory.mktemp("drafter"), tokenizer, len(tokenizer) - 1)


@pytest.fixture(scope="session")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drafter with tokens of its own."""
    return save_sdar(tmp_path_factory.mktemp("foreign"), other_tokenizer(), 1)


@pytest.fixture
def own_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pair is registered, and none of the user's is touched."""
    monkeypatch.setattr(named, "pairs_file", lambda: tmp_path / "pairs.json")
