"""GGUF files on our kernels: the logits of the checkpoint that dequantising gives, bit for bit, and its modes."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import plain
from dllm_kernels.compiled import library
from dllm_kernels.decoder.weights import MATRICES
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.gguf.stored import stored_weights
from dllm_plugins.llama_cpp.convert import convert
from langchain_dllm import DLLM

from .checkpoints import KINDS
from .checkpoints import MASK
from .checkpoints import make
from .twins import foreign
from .twins import twin

pytest.importorskip("llama_cpp", reason="llama.cpp's own routine quantises")

#: Every graph and every switch of a config, each in a type; rows of 64 numbers hold blocks of 32.
SMALL = {
    "llada": "Q4_0",
    "illada": "Q4_1",
    "llama3-rotary": "Q8_0",
    "a2d-llama": "Q4_0",
    "stable_diffcoder": "Q5_0",
    "dream": "Q4_0",
    "yarn-rotary": "Q5_1",
    "fast_dllm_v2": "Q4_1",
    "wedlm-qwen2": "Q8_0",
    "sdar": "Q4_0",
    "a2d-qwen3": "Q8_0",
    "linear-rotary": "Q4_1",
    "wedlm-qwen3": "Q4_0",
}
#: Types whose blocks are of 256, and what is in a file: values keep more digits than queries and keys.
LARGE = {"Q4_K_M": "Q4_K, Q6_K", "Q5_K_M": "Q5_K, Q6_K", "Q6_K": "Q6_K", "Q4_0": "Q4_0, Q6_K"}
MIXED = ("Q4_K_M", "Q5_K_M")
WIDE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
ON_CPU: dict[str, Any] = {"backend": "kernels", "device": "cpu"}


def preset(name: str) -> str | None:
    """Of families whose config does not tell."""
    return "mdlm" if name.startswith("a2d") else None


def pair(place: Path, name: str, quant: str, dtype: str = "float32", **config: Any) -> tuple[Model, Model]:
    """A file, and the folder of its dequantised weights, both on the kernels."""
    options: dict[str, Any] = {"family": KINDS[name].family, "mask_id": MASK, "preset": preset(name)}
    file = convert(make(place / "folder", name, **config), place / "file.gguf", quant, **options)
    ours = load_model(str(file), dtype=dtype, **ON_CPU)
    return ours, load_model(str(twin(file, place / "twin", name)), dtype=dtype, **ON_CPU, **options)


def logits(model: Model) -> Tensor:
    """Of a whole text and of an open block behind a prefix."""
    denoiser = model.denoiser
    row = denoiser.open_row()
    found = []
    for begin, tokens, noisy in ((0, range(40, 57), False), (17, [MASK] * 6, True)):
        count = len(tokens)
        part = Segment(
            row, tuple(tokens), range(begin, begin + count), noisy=noisy, causal=not noisy, wanted=range(count)
        )
        found.append(denoiser.logits(denoiser.forward([part])[0]))
        if not noisy:
            denoiser.freeze(row, count)
    return torch.cat(found)


def answers(model: Model, **options: Any) -> list[list[int]]:
    """Of rows that are decoded together."""
    config = SamplingConfig(max_new_tokens=8, seed=3, **options)
    finished = model.engine().generate([Request([*range(40, 40 + length)], config) for length in (3, 11)])
    return [list(finish.tokens) for finish in finished]


def same_specs(ours: Model, other: Model) -> None:
    """All but the name, and in what form weights are."""
    for field in fields(ours.denoiser.spec):
        if field.name not in ("name", "weights"):
            assert getattr(ours.denoiser.spec, field.name) == getattr(other.denoiser.spec, field.name), field.name


@pytest.mark.parametrize("name", SMALL)
def test_a_file_has_the_logits_of_its_dequantised_twin(name: str, tmp_path: Path) -> None:
    """And all modes of its family, every option of the spec, and the tokens."""
    ours, other = pair(tmp_path, name, SMALL[name])
    assert torch.equal(logits(ours), logits(other))
    assert answers(ours) == answers(other)
    same_specs(ours, other)
    if library.why_not() is None:
        assert SMALL[name] in ours.denoiser.spec.weights


@pytest.mark.parametrize("quant", LARGE)
def test_large_blocks_and_files_of_several_kinds(quant: str, tmp_path: Path) -> None:
    """In bfloat16; where queries, keys and values are of two kinds, their joined matrix is dequantised."""
    ours, other = pair(tmp_path, "sdar", quant, "bfloat16", **WIDE)
    assert torch.equal(logits(ours), logits(other))
    file = open_gguf(tmp_path / "file.gguf")
    kinds = {info.type.name for info in file.header.tensors.values() if len(info.shape) > 1}
    assert ", ".join(sorted(kinds)) == LARGE[quant]
    layers = stored_weights(file, torch.bfloat16).layers
    assert all(isinstance(layer.down, Blocks) for layer in layers)
    types = [{file.header.tensors[f"blk.{at}.attn_{part}.weight"].type for part in "qkv"} for at in range(len(layers))]
    assert [isinstance(layer.qkv, Blocks) for layer in layers] == [len(found) == 1 for found in types]
    assert quant not in MIXED or any(len(found) > 1 for found in types)


@pytest.mark.parametrize(("quant", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_a_file_without_blocks_has_the_checkpoints_weights(quant: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """As they are stored: nothing is rounded."""
    options: dict[str, Any] = {"family": "diffullama", "mask_id": MASK}
    folder = make(tmp_path / "folder", "diffullama", dtype)
    file = convert(folder, tmp_path / "file.gguf", quant, **options)
    ours = load_model(str(file), dtype="float32", **ON_CPU)
    other = load_model(str(folder), dtype="float32", **ON_CPU, **options)
    assert torch.equal(logits(ours), logits(other))
    same_specs(ours, other)


@pytest.mark.parametrize("name", ["llama3-rotary", "a2d-llama", "dream", "yarn-rotary", "linear-rotary", "a2d-qwen3"])
def test_a_file_of_others_says_the_same_by_its_keys(name: str, tmp_path: Path) -> None:
    """Sizes, epsilon, tied heads, biases, frequencies: what no config of ours says."""
    options: dict[str, Any] = {"family": KINDS[name].family, "mask_id": MASK, "preset": preset(name)}
    file = convert(make(tmp_path / "folder", name), tmp_path / "ours.gguf", "Q8_0", **options)
    ours, family = open_gguf(file), open_gguf(file).layout.name
    other = open_gguf(foreign(file, tmp_path / "foreign.gguf"), family)
    assert not other.ours
    mine, theirs = (stored_weights(each, torch.float32).plain() for each in (ours, other))
    assert theirs.shape == mine.shape
    assert theirs.tied == mine.tied
    assert theirs.rope_scale == pytest.approx(mine.rope_scale, rel=1e-6)
    assert torch.allclose(theirs.frequencies, mine.frequencies, rtol=1e-6, atol=0)
    for one, two in zip(theirs.layers, mine.layers, strict=True):
        for field in fields(one):
            first, second = getattr(one, field.name), getattr(two, field.name)
            assert (first is None) == (second is None)
            assert first is None or torch.equal(first, second)
    options |= {"family": family}
    assert answers(load_model(str(other.folder), **ON_CPU, **options)) == answers(load_model(str(file), **ON_CPU))


@pytest.mark.parametrize(("quant", "copied"), [("Q8_0", {"qkv", "gate_up"}), ("BF16", {"qkv"})])
def test_matrices_stay_in_the_mapped_file(quant: str, copied: set[str], tmp_path: Path) -> None:
    """But for joined ones; gate and up are one where the file has them one behind the other."""
    file = convert(make(tmp_path / "folder", "sdar", torch.bfloat16), tmp_path / "file.gguf", quant)
    weights = stored_weights(open_gguf(file), torch.bfloat16)
    size = file.stat().st_size
    for layer in weights.layers:
        parts = {name: getattr(layer, name) for name in MATRICES}
        storages = {
            name: (part.data if isinstance(part, Blocks) else part).untyped_storage() for name, part in parts.items()
        }
        assert {name for name, storage in storages.items() if storage.nbytes() != size} == copied
    assert not weights.tied


def test_tensors_may_begin_anywhere(tmp_path: Path) -> None:
    """A file may say that they are not aligned."""
    file = convert(make(tmp_path / "folder", "sdar", torch.bfloat16), tmp_path / "file.gguf", "BF16")
    odd = foreign(file, tmp_path / "odd.gguf", more={"filler": "odd"}, alignment=1)
    assert any(info.offset % 4 for info in open_gguf(odd, "sdar").header.tensors.values())
    expected = stored_weights(open_gguf(file), torch.float32)
    found = stored_weights(open_gguf(odd, "sdar"), torch.float32)
    assert torch.equal(plain(found.embedding), plain(expected.embedding))
    assert torch.equal(found.layers[1].gate_up, expected.layers[1].gate_up)  # type: ignore[arg-type]


def test_weights_can_be_asked_for(tmp_path: Path) -> None:
    """In blocks or dequantised, which decode the same; `auto` then takes the kernels; hosts hand it on."""
    options: dict[str, Any] = {"mask_id": MASK}
    file = convert(make(tmp_path / "folder", "sdar"), tmp_path / "file.gguf", "Q4_0", **options)
    dequantised = load_model(str(file), weights="dequantised", dtype="float32")
    assert dequantised.denoiser.spec.weights == "float32"
    ours = load_model(str(file), dtype="bfloat16", backend="kernels")
    assert ours.denoiser.spec.numerics == "row-invariant"
    chosen = "auto"
    if library.why_not() is None:
        chosen = "blocks"
        assert load_model(str(file), weights=chosen).denoiser.spec.weights == "Q4_0"
    assert answers(load_model(str(file), weights=chosen, dtype="float32", **ON_CPU)) == answers(dequantised)
    host = DLLM(model=str(file), backend="kernels", max_tokens=4)
    shared: Any = host._shared(str(file))
    assert shared.model.denoiser.spec.numerics == "row-invariant"
