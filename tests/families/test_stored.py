"""Checkpoints of every family as they are found: quantised, with tensors that say things twice, of odd dtypes."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dllm_kernels.decoder import LayerWeights
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.layout import Config

from ..golden.cases import CLONED
from ..golden.cases import case_folders
from .test_checkpoint import change
from .test_checkpoint import rewrite

NAMED = {"open_dcoder": "open_dcoder"}


@pytest.fixture
def llada(tmp_path: Path) -> Path:
    """A copy of a tiny LLaDA checkpoint, to be stored in other ways."""
    return Path(shutil.copytree(CLONED["llada_dense"] / "checkpoint", tmp_path / "llada"))


def state(folder: Path, family: str | None = None) -> dict[str, Tensor]:
    """Its weights, loaded."""
    return load_checkpoint(open_checkpoint(folder, family)).state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit, dtypes too."""
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def as_fp8(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every matrix but the first and the last in FP8 with a scale a block of 8 by 16; returns what they are then."""
    plain = {}
    for name in [
        name for name, tensor in tensors.items() if (tensor.ndim == 2 and "layers" in name) or "blocks" in name
    ]:
        weight = tensors[name]
        if weight.ndim != 2:
            continue
        rows, columns = weight.shape
        scale = torch.rand(-(-rows // 8), -(-columns // 16), generator=torch.Generator().manual_seed(len(name))) + 0.5
        tensors[name] = weight.to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale
        wide = scale.repeat_interleave(8, 0)[:rows].repeat_interleave(16, 1)[:, :columns]
        plain[name] = tensors[name].float() * wide
    assert plain
    return plain


@pytest.mark.parametrize("folder", case_folders(), ids=lambda folder: folder.name)
def test_fp8_in_every_family(folder: Path, tmp_path: Path) -> None:
    """Under each family's own names, experts one by one and fused projections too."""
    family = NAMED.get(folder.name)
    stored = Path(shutil.copytree(folder / "checkpoint", tmp_path / "stored"))
    plain = Path(shutil.copytree(stored, tmp_path / "plain"))
    weights: dict[str, Tensor] = {}
    rewrite(stored, lambda tensors: weights.update(as_fp8(tensors)))
    change(stored, quantization_config={"quant_method": "fp8", "weight_block_size": [8, 16]})
    rewrite(plain, lambda tensors: tensors.update(weights))
    assert same(state(stored, family), state(plain, family))
    assert "quantization_config" not in open_checkpoint(stored, family).config


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"},
            "'torchao'.*use the repository of the unqu",
        ),
        ({"quant_method": "hqq"}, "'hqq'"),
        ({"quant_method": "quanto"}, "'quanto'"),
        ({"bits": 4, "group_size": 64}, "'mlx'"),
        ({"load_in_4bit": True}, "'bitsandbytes', but none is"),
        ("fp8", "where an object is needed"),
    ],
)
def test_what_is_not_read_is_refused(llada: Path, settings: Any, words: str) -> None:
    """By name, before any weight is loaded where it can be."""
    change(llada, quantization_config=settings)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(open_checkpoint(llada))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "hf_quant_config.json",
            '{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}',
            "NVFP4",
        ),
        ("quantize_config.json", '{"bits": 3, "group_size": 128}', "bits=3"),
        ("quant_config.json", '{"w_bit": 4, "version": "GEMV", "zero_point": true}', "version='gemv'"),
        ("quantize_config.json", "{", "cannot read"),
    ],
)
def test_a_file_beside_config_json(llada: Path, name: str, content: str, words: str) -> None:
    """It is read where config.json says nothing."""
    (llada / name).write_text(content)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(open_checkpoint(llada))


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.bool, torch.float8_e4m3fn, torch.complex64]
)
def test_a_dtype_no_weight_can_have(llada: Path, dtype: torch.dtype) -> None:
    """Under an unchanged name, and with nothing said about it."""
    name = "model.transformer.blocks.0.q_proj.weight"
    rewrite(llada, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(CheckpointError, match=f"self_attn.q_proj.weight is {str(dtype)[6:]}.*unquantised"):
        load_checkpoint(open_checkpoint(llada))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_of_weights(llada: Path, dtype: torch.dtype) -> None:
    """They load as they are."""
    rewrite(llada, lambda tensors: tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()}))
    assert {tensor.dtype for tensor in state(llada).values()} == {dtype}


def _put(more: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    tensors.update(more)


def _names(folder: Path, family: str | None) -> dict[str, str]:
    """Stored names by those of the class, of tensors that keep their shape."""
    checkpoint = open_checkpoint(folder, family)
    tensors = load_file(folder / "model.safetensors")
    return {next(iter(checkpoint.layout.tensors({name: tensors[name]}, checkpoint.config))): name for name in tensors}


def _ties(config: Config) -> dict[str, Any]:
    return {"weight_tying" if "weight_tying" in config else "tie_word_embeddings": True}


HEADED = [folder for folder in case_folders() if folder.name not in ("bert_chat", "diffusion_gemma")]


@pytest.mark.parametrize("folder", HEADED, ids=lambda folder: folder.name)
def test_a_tied_checkpoint_with_a_head(folder: Path, tmp_path: Path) -> None:
    """An identical one loads, and so does one in place of the embedding; another one is refused."""
    family = NAMED.get(folder.name)
    position = Path(shutil.copytree(folder / "checkpoint", tmp_path / "tied"))
    names = _names(position, family)
    body = names["model.embed_tokens.weight"]
    # What is tied already is written with the name of the class, which every family leaves as it is.
    head = names.get("lm_head.weight", "lm_head.weight")
    change(position, **_ties(json.loads((position / "config.json").read_text())))
    rewrite(position, lambda tensors: tensors.pop(head, None))
    without = state(position, family)
    rewrite(position, lambda tensors: tensors.update({head: tensors[body].clone()}))
    assert same(state(position, family), without)
    rewrite(position, lambda tensors: tensors.pop(body))
    assert same(state(position, family), without)
    rewrite(position, lambda tensors: tensors.update({body: tensors[head] + 1}))
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from model.embed_tokens.weight"):
        state(position, family)


def test_tensors_that_repeat_the_config(llada: Path) -> None:
    """Rotary frequencies as old classes stored them, layer by layer and rounded, and counted positions."""
    config = open_checkpoint(llada).native_config
    size, theta = config.head_dim, config.rope_parameters["rope_theta"]
    wave = 1.0 / theta ** (torch.arange(0, size, 2).float() / size)
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": wave,
        "model.layers.1.self_attn.rotary_emb.inv_freq": wave.bfloat16(),
        "model.rotary_emb.inv_freq": wave.half(),
        "model.position_ids": torch.arange(64)[None],
    }
    without = state(llada)
    rewrite(llada, lambda tensors: tensors.update(more))
    assert same(state(llada), without)
    for name, wrong in {"model.rotary_emb.inv_freq": wave * 1.01, "model.position_ids": torch.arange(1, 9)}.items():
        damaged = {**more, name: wrong}
        rewrite(llada, partial(_put, damaged))
        with pytest.raises(CheckpointError, match=f"{name} holds other numbers"):
            state(llada)


@pytest.mark.parametrize(
    "says",
    [
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "kernels-community/flash-attn3"},
        {"experts_implementation": "deepgemm"},
    ],
)
@pytest.mark.parametrize("name", ["llada_dense", "bert_chat"])
def test_an_implementation_that_computes_the_same(name: str, says: dict[str, str], tmp_path: Path) -> None:
    """Another engine's speed depends on it, and nothing here."""
    position = Path(shutil.copytree(CLONED[name] / "checkpoint", tmp_path / "model"))
    change(position, **says)
    assert load_checkpoint(open_checkpoint(position)).config._attn_implementation == "sdpa"


def test_an_implementation_that_is_honoured_or_unknown(llada: Path) -> None:
    """Those of transformers' own classes, and one that may be another function."""
    change(llada, attn_implementation="eager")
    assert load_checkpoint(open_checkpoint(llada)).config._attn_implementation == "eager"
    change(llada, attn_implementation="sink_attention")
    with pytest.raises(CheckpointError, match=r"attn_implementation='sink_attention'.*'eager', 'sdpa'"):
        open_checkpoint(llada)


def _tensors(layers: Sequence[LayerWeights]) -> list[Tensor]:
    found = [getattr(layer, field.name) for layer in layers for field in fields(layer)]
    return [tensor for tensor in found if tensor is not None]


def test_the_default_models_base(tiny_folder: Path, tmp_path: Path) -> None:
    """Its loader reads stored weights by the same rules, and compares a head that it does not need."""
    base = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    weights: dict[str, Tensor] = {}
    rewrite(base, lambda tensors: weights.update(as_fp8(tensors)))
    change(base, quantization_config={"quant_method": "fp8", "weight_block_size": [8, 16]})
    options: dict[str, Any] = {"denoiser": tiny_folder.parent / "denoiser.safetensors", "dtype": "float32"}
    for backend in ("torch", "kernels"):
        stored: Any = load_model("dllm", base=base, backend=backend, device="cpu", **options).denoiser
        assert torch.equal(stored.decoder.weights.layers[1].down, weights["model.layers.1.mlp.down_proj.weight"])
        assert all(type(tensor) is Tensor for tensor in _tensors(stored.decoder.weights.layers))
    change(base, quantization_config={"quant_method": "aqlm"})
    with pytest.raises(CheckpointError, match="'aqlm'"):
        load_model("dllm", base=base, device="cpu", **options)
    other = Path(shutil.copytree(tiny_folder, tmp_path / "other"))
    rewrite(other, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"] + 1}))
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs"):
        load_model("dllm", base=other, device="cpu", **options)


@pytest.mark.parametrize(
    "says",
    [{"rope_type": "default"}, {"type": "default"}, {"type": "linear", "factor": 1.0}, {}, None, False],
)
def test_rotary_scaling_that_means_nothing(says: Any, tmp_path: Path) -> None:
    """It loads; what would change positions is refused."""
    position = Path(shutil.copytree(CLONED["sdar"] / "checkpoint", tmp_path / "sdar"))
    without = state(position)
    change(position, rope_scaling=says)
    assert same(state(position), without)
    for more in ({"rope_type": "yarn", "factor": 4.0}, {"rope_type": "default", "rope_theta": 1.0}, {"type": "linear"}):
        change(position, rope_scaling=more)
        with pytest.raises(CheckpointError, match="rope_scaling="):
            state(position)


@pytest.mark.parametrize("key", ["eos_token_id", "pad_token_id", "bos_token_id"])
def test_a_mask_that_is_another_special_token(llada: Path, key: str) -> None:
    """Of the config or the caller, it is refused with what to say instead."""
    change(llada, mask_token_id=236, **{key: 236})
    with pytest.raises(CheckpointError, match=r"mask_id=236 of .* is also a token that .*say mask_id="):
        load_model(str(llada), dtype="float32", device="cpu")
    with pytest.raises(OptionError, match="mask_id=236"):
        load_model(str(llada), mask_id=236, dtype="float32", device="cpu")
    assert load_model(str(llada), mask_id=235, dtype="float32", device="cpu").denoiser.spec.mask_id == 235


def test_a_mask_that_is_not_the_tokenizers(llada: Path, tiny_folder: Path) -> None:
    """Two masks contradict one another; what the caller says comes first."""
    change(llada, mask_token_id=236)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_folder / file, llada)
    position = llada / "tokenizer_config.json"
    position.write_text(json.dumps({**json.loads(position.read_text()), "mask_token": "<unk>"}))
    with pytest.raises(CheckpointError, match="mask_token_id=236, and the tokenizer's mask token is 0"):
        load_model(str(llada), dtype="float32", device="cpu")
    assert load_model(str(llada), mask_id=236, dtype="float32", device="cpu").denoiser.spec.mask_id == 236
