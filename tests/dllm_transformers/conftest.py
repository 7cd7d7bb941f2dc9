"""The tiny base as transformers loads it, the strategy with its denoiser, and both as one checkpoint."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerBase

from dllm_transformers import block_diffusion
from dllm_transformers import export

from .checkpoints import copy_of


@pytest.fixture
def model(tiny_folder: Path) -> Any:
    """The tiny base as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


@pytest.fixture
def strategy(tiny_folder: Path) -> partial[Any]:
    """The strategy with the tiny denoiser."""
    return partial(block_diffusion, denoiser=tiny_folder.parent / "denoiser.safetensors")


@pytest.fixture(scope="session")
def tokenizer(tiny_folder: Path) -> PreTrainedTokenizerBase:
    """The tiny model's tokenizer, with a pad token."""
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_folder, padding_side="left")
    found.pad_token = "<unk>"
    return found


@pytest.fixture(scope="session")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tri-mode model as `export` writes it."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    return export(folder, tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")


@pytest.fixture
def llada(tmp_path: Path, tiny_folder: Path) -> Path:
    """A copy of a tiny LLaDA checkpoint in its original format, to be changed."""
    return copy_of("llada_dense", tmp_path / "llada", tiny_folder)
