"""A denoiser's file says whose it is: its base takes it, rounded or not, and any other is refused with the reason."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dllm_plugins import load_model
from dllm_plugins.default_model.base_model import gguf_path
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.denoisers.base_mark import check_embedding
from dllm_plugins.denoisers.base_mark import check_shape
from dllm_plugins.denoisers.base_mark import mark_of
from dllm_plugins.denoisers.weights import EMBEDDING
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import read_tensors
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.replacing import read_config
from dllm_plugins.training.base import open_base
from dllm_transformers import block_diffusion

from .bases import make_base
from .bases import make_denoiser


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("marks") / "base", "qwen3")


@pytest.fixture(scope="module")
def denoiser(base: Path) -> Path:
    return make_denoiser(base.parent / "denoiser.safetensors", base, base=json.dumps(open_base(base).mark))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_its_own_base_takes_it(base: Path, denoiser: Path, dtype: str) -> None:
    """In whatever it is computed."""
    assert load_model(base=base, denoiser=denoiser, dtype=dtype, device="cpu").denoiser.spec.draft_head


@pytest.mark.parametrize(
    ("numbers", "seed", "message"),
    [
        ({"rms_norm_eps": 1e-5}, 0, "eps=1e-06, not 1e-05"),
        ({"max_position_embeddings": 1024}, 0, "context=512, not 1024"),
        ({"vocab_size": 300}, 0, "vocabulary=259, not 300"),
        ({"num_hidden_layers": 3}, 0, "layers=2, not 3"),
        ({"attention_bias": True}, 0, "qkv_bias=False, not True"),
        ({}, 1, r"another matrix \(cosine -?0"),
    ],
    ids=str,
)
def test_another_base_is_refused(
    denoiser: Path, tmp_path: Path, numbers: dict[str, Any], seed: int, message: str
) -> None:
    """With what differs, and how to make one for it; through transformers, too."""
    other = make_base(tmp_path / "other", "qwen3", seed, **numbers)
    for load in (
        lambda: load_model(base=other, denoiser=denoiser, device="cpu", dtype="float32"),
        lambda: AutoModelForCausalLM.from_pretrained(other, trust_remote_code=False).generate(
            torch.tensor([[5, 6]]), custom_generate=block_diffusion, denoiser=denoiser, max_new_tokens=2
        ),
    ):
        with pytest.raises(CheckpointError, match=message) as caught:
            load()
        assert "belongs to the base base" in str(caught.value)
        assert "train --base" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": "a", "shape": 1, "embedding": []}', "[" * 100_000])
def test_a_mark_that_is_none_is_refused(base: Path, tmp_path: Path, text: str) -> None:
    """Its author knows whose it is."""
    denoiser = make_denoiser(tmp_path / "denoiser.safetensors", base, base=text)
    with pytest.raises(CheckpointError, match="of its base, which no training wrote"):
        load_model(base=base, denoiser=denoiser, device="cpu")


def test_lengths_are_those_of_the_training(base: Path, tmp_path: Path) -> None:
    """Where the file says them; what is no length is refused."""

    def lengths(**about: str) -> tuple[int, int]:
        denoiser = make_denoiser(tmp_path / "denoiser.safetensors", base, **about)
        spec = load_model(base=base, denoiser=denoiser, device="cpu", dtype="float32").denoiser.spec
        return spec.block_length, spec.draft_length

    assert lengths() == (8, 2)
    assert lengths(block="4", group="6") == (4, 2)
    assert lengths(group="1") == (8, 1)
    for about in (
        {"block": "0"},
        {"group": "17"},
        {"block": "1025"},
        {"block": "9" * 5000},
        {"group": ""},
        {"block": "x"},
    ):
        with pytest.raises(CheckpointError, match=f"the denoiser says {next(iter(about))}="):
            lengths(**about)


def test_rounding_leaves_a_base_what_it_is() -> None:
    """The default model's blocks and its dequantised folder are one base."""
    shape = LlamaShape.from_config(read_config(require_base()))
    mark = {"base": json.dumps(mark_of("it", shape, read_stored(gguf_path()).tensors[EMBEDDING]))}
    embedding = read_tensors(require_base())[EMBEDDING]
    check_embedding(mark, embedding, "file")
    check_embedding(mark, embedding.half() + 0.1 * embedding.std() * torch.randn(embedding.shape), "file")
    check_shape(mark, shape, "file")
    with pytest.raises(CheckpointError, match="heads=9, not 3"):
        check_shape(mark, replace(shape, heads=3), "file")
