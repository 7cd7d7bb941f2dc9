"""The default model's files: every name, shape, dtype and number is compared before anything is made of them."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor

from dllm_plugins.denoisers.low_rank import FORMAT
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.low_rank import low_rank_from
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.errors import CheckpointError
from dllm_plugins.models import load_model

Tensors = dict[str, Tensor]


@pytest.fixture
def shape(tiny_folder: Path) -> LlamaShape:
    return LlamaShape.from_config(json.loads((tiny_folder / "config.json").read_text()))


@pytest.fixture
def base(tiny_folder: Path) -> Tensors:
    return load_file(tiny_folder / "model.safetensors")


@pytest.fixture
def denoiser(tiny_folder: Path) -> Tensors:
    return load_file(tiny_folder.parent / "denoiser.safetensors")


def replaced(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors, str], None]:
    return lambda tensors, name: tensors.update({name: change(tensors[name])})


#: A name or None, which stands for any in the message.
DAMAGES: dict[str, Callable[[Tensors, str], object]] = {
    "missing": lambda tensors, name: tensors.pop(name),
    "renamed": lambda tensors, name: tensors.update({f"{name}s": tensors.pop(name)}),
    "one more": lambda tensors, name: tensors.update({f"other.{name}": tensors[name]}),
    "a row less": replaced(lambda tensor: tensor[:-1]),
    "a row more": replaced(lambda tensor: torch.cat([tensor, tensor[:1]])),
    "a column less": replaced(lambda tensor: tensor[..., :-1]),
    "an axis more": replaced(lambda tensor: tensor[None]),
    "flat": replaced(lambda tensor: tensor.flatten()[:, None]),
    "empty": replaced(lambda tensor: tensor[:0]),
    "int8": replaced(lambda tensor: tensor.to(torch.int8)),
    "int64": replaced(lambda tensor: tensor.long()),
    "bool": replaced(lambda tensor: tensor > 0),
    "float8": replaced(lambda tensor: tensor.to(torch.float8_e4m3fn)),
    "not finite": replaced(lambda tensor: tensor * math.inf),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damaged_tensor_is_taken(base: Tensors, denoiser: Tensors, shape: LlamaShape, damage: str) -> None:
    """Each single one of base and denoiser, and the message names it."""
    for name in base:
        tensors = dict(base)
        DAMAGES[damage](tensors, name)
        with pytest.raises(CheckpointError) as caught:
            llama_from(tensors, shape, "base", torch.float32)
        assert name in str(caught.value)
    for name in denoiser:
        tensors = dict(denoiser)
        DAMAGES[damage](tensors, name)
        with pytest.raises(CheckpointError, match="denoiser="):
            low_rank_from(tensors, {}, shape, torch.float32, "file")


def test_weights_of_two_models_are_not_mixed(base: Tensors, denoiser: Tensors, shape: LlamaShape) -> None:
    """Two tensors of one size that are exchanged cannot be told; of two sizes they are."""
    queries, keys = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "qk")
    with pytest.raises(CheckpointError, match="is"):
        llama_from(base | {queries: base[keys], keys: base[queries]}, shape, "base")
    half = base | {queries: base[queries].bfloat16()}
    with pytest.raises(CheckpointError, match=r"torch.bfloat16, torch.float32"):
        llama_from(half, shape, "base")
    assert llama_from(half, shape, "base", torch.bfloat16).embedding.dtype == torch.bfloat16
    swapped = denoiser | {"chain.down": denoiser["chain.up"], "chain.up": denoiser["chain.down"]}
    with pytest.raises(CheckpointError, match="chain"):
        low_rank_from(swapped, {}, shape, torch.float32, "file")


def test_a_head_that_is_stored_must_be_the_embedding(base: Tensors, shape: LlamaShape) -> None:
    """Equal it is redundant; another matrix, or one of another size, contradicts the config."""
    embedding = base["model.embed_tokens.weight"]
    llama_from(base | {"lm_head.weight": embedding.clone()}, shape, "base")
    for head in (embedding * 2, embedding[:-1], embedding.T.contiguous()):
        with pytest.raises(CheckpointError, match="lm_head"):
            llama_from(base | {"lm_head.weight": head}, shape, "base")


def test_a_tensor_in_two_files_is_refused(tiny_folder: Path, base: Tensors, tmp_path: Path) -> None:
    """Nobody can tell which is meant; in files of their own they are one model."""
    folder = shutil.copytree(tiny_folder, tmp_path / "base")
    norm = {"model.norm.weight": base["model.norm.weight"]}
    save_file(norm, folder / "second.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 'model.norm.weight' again"):
        load_llama(folder, torch.float32)
    save_file({name: tensor for name, tensor in base.items() if name not in norm}, folder / "model.safetensors")
    assert torch.equal(load_llama(folder, torch.float32).norm, norm["model.norm.weight"])


@pytest.mark.parametrize("ids", [[0, 259], [-1, 3], [], [[1, 2]], [1.0, 2.0], [True, False]], ids=str)
def test_drafts_are_ids_of_the_base(denoiser: Tensors, shape: LlamaShape, ids: list[Any], tmp_path: Path) -> None:
    """Inside its vocabulary, and at least one."""
    path = tmp_path / "denoiser.safetensors"
    save_file(denoiser | {"draft_tokens": torch.tensor(ids)}, path, metadata={"format": FORMAT})
    with pytest.raises(CheckpointError, match="draft_tokens"):
        load_low_rank(path, shape, torch.float32)
    save_file(denoiser | {"draft_tokens": torch.tensor([0, 258])}, path, metadata={"format": FORMAT})
    drafts = load_low_rank(path, shape, torch.float32).draft_tokens
    assert drafts is not None and drafts.tolist() == [0, 258]


NUMBERS: list[dict[str, Any]] = [
    {name: value}
    for name in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
    for value in (0, -1, 10**12, 10**400, True, "2", 1.5, None, [2])
]
NUMBERS += [
    {name: value} for name in ("vocab_size", "max_position_embeddings", "head_dim") for value in (0, 10**9, "9")
]
NUMBERS += [
    {name: value} for name in ("rope_theta", "rms_norm_eps") for value in (0, -1, math.nan, math.inf, "1", None)
]
NUMBERS += [
    {"head_dim": 15},
    {"num_key_value_heads": 3},
    {"num_attention_heads": 3},
    {"hidden_size": 63, "head_dim": None},
    {"rope_scaling": "linear"},
    {"rope_parameters": [1]},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
    {"eos_token_id": 259},
    {"eos_token_id": [2, -1]},
    {"eos_token_id": []},
    {"eos_token_id": True},
]


@pytest.mark.parametrize("change", NUMBERS, ids=lambda change: json.dumps(change)[:60])
def test_numbers_of_no_model_are_refused(tiny_folder: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """Before anything is allocated; the message says which."""
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).symlink_to(tiny_folder / name)
    config = json.loads((tiny_folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        load_model(base=tmp_path, denoiser=tiny_folder.parent / "denoiser.safetensors")
    assert (
        any(name in str(caught.value) for name in change)
        or "rope" in str(caught.value)
        or "rotary" in str(caught.value)
    )
