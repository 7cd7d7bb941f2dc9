"""What the converter writes is what torch computes; what llama.cpp would compute otherwise is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_plugins.gguf.header import read_header
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.convert import convert_base

from .checkpoints import KINDS
from .checkpoints import MASK
from .checkpoints import VOCABULARY
from .checkpoints import make
from .passes import llama_logits
from .passes import torch_logits

#: How far logits may move from float32's, as a share of their root mean square.
BOUNDS = {"BF16": 0.01, "F16": 0.002, "Q8_0": 0.03, "Q5_1": 0.15, "Q4_0": 0.3}


def some_ids(length: int = 40) -> list[int]:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (length,), generator=draw).tolist()


def rms(values: torch.Tensor) -> float:
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("name", KINDS)
def test_float32_files_give_torch_logits(name: str, tmp_path: Path) -> None:
    """Both masks, where the graph has memory; the others see the whole canvas."""
    kind = KINDS[name]
    folder = make(tmp_path / "folder", name)
    out = convert(folder, tmp_path / "out.gguf", "F32", family=kind.family, preset=_preset(name))
    assert read_header(out).architecture == kind.graph
    ids = some_ids()
    for causal in (False, True):
        found, memory = llama_logits(out, ids, causal=causal)
        assert memory == (kind.graph not in ("dream", "llada", "llada-moe", "rnd1"))
        if memory or not causal:
            expected = torch_logits(folder, ids, causal=causal, family=kind.family)
            assert rms(expected) > 0.5
            assert float((found - expected).abs().max()) <= 1e-4


def _preset(name: str) -> str | None:
    return {"a2d": "mdlm", "llada2": "llada2.1"}.get(name.split("-", maxsplit=1)[0])


@pytest.mark.parametrize("quant", BOUNDS)
@pytest.mark.parametrize(("name", "config"), [("dream", {}), ("sdar_moe", {"num_experts_per_tok": 8})])
def test_other_types_stay_within_their_bound(name: str, config: dict[str, Any], quant: str, tmp_path: Path) -> None:
    """And are not float32 under another name. All experts are asked: rounding must not choose others."""
    folder = make(tmp_path / "folder", name, **config)
    exact, _ = llama_logits(convert(folder, tmp_path / "exact.gguf", "F32"), some_ids(), causal=False)
    out = convert(folder, tmp_path / "out.gguf", quant)
    found, _ = llama_logits(out, some_ids(), causal=False)
    share = rms(found - exact) / rms(exact)
    assert 0 < share <= BOUNDS[quant]
    types = {tensor.type.name for tensor in read_header(out).tensors.values()}
    assert quant in types
    assert {tensor.name for tensor in tmp_path.iterdir()} == {"folder", "exact.gguf", "out.gguf"}


def test_bfloat16_weights_are_quantised_from_bfloat16(tmp_path: Path) -> None:
    """The wide file in between holds the stored weights as they are: no larger than needed."""
    folder = make(tmp_path / "folder", "dream", torch.bfloat16)
    seen: list[tuple[str, int, int]] = []
    convert(folder, tmp_path / "out.gguf", "Q8_0", progress=lambda *said: seen.append(said))
    written = [said for said in seen if said[0] == "write"]
    quantised = [said for said in seen if said[0] == "quantise"]
    stored = (folder / "model.safetensors").stat().st_size
    assert written[-1][1] == written[-1][2] < 1.2 * stored
    assert quantised[-1][1] == quantised[-1][2] > 0
    assert [done for _, done, _ in seen if done < 0] == []
    assert written == sorted(written)


def test_bfloat16_files_hold_the_stored_bits(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "dream", torch.bfloat16)
    out = convert(folder, tmp_path / "out.gguf")
    tensor = read_header(out).tensors["blk.1.ffn_up.weight"]
    stored = load_file(folder / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    with out.open("rb") as file:
        file.seek(tensor.offset)
        assert file.read(tensor.size) == stored.view(torch.uint8).numpy().tobytes()


def test_stacked_experts_are_the_same_as_one_by_one(tmp_path: Path) -> None:
    """Some checkpoints store them so."""
    one, stacked = make(tmp_path / "one", "rnd1"), make(tmp_path / "stacked", "rnd1")
    tensors = load_file(one / "model.safetensors")
    other = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp.experts."
        parts = {
            part: [tensors[f"{prefix}{expert}.{part}_proj.weight"] for expert in range(8)]
            for part in ("gate", "up", "down")
        }
        other[f"{prefix}gate_up_proj"] = torch.cat([torch.stack(parts["gate"]), torch.stack(parts["up"])], dim=1)
        other[f"{prefix}down_proj"] = torch.stack(parts["down"])
    save_file(other, stacked / "model.safetensors")
    convert(one, tmp_path / "one.gguf", "F32")
    convert(stacked, tmp_path / "two.gguf", "F32")
    assert torch.equal(
        *(llama_logits(tmp_path / name, some_ids(), causal=False)[0] for name in ("one.gguf", "two.gguf"))
    )


def test_the_file_says_what_loading_needs(tmp_path: Path) -> None:
    folder = make(tmp_path / "LLaDA2.0-tiny", "llada2", eos_token_id=3)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    metadata = read_header(convert(folder, tmp_path / "out.gguf", preset="llada2.1", mask_id=9)).metadata
    assert json.loads(metadata["dllm.config"]) == json.loads((folder / "config.json").read_text())
    assert json.loads(metadata["dllm.generation_config"]) == {"eos_token_id": [3, 5]}
    assert metadata["dllm.family"] == "llada2"
    assert metadata["dllm.preset"] == "llada2.1"
    assert metadata["dllm.mask_token_id"] == metadata["tokenizer.ggml.mask_token_id"] == 9
    assert metadata["diffusion.shift_logits"] is False


def test_a_shifted_family_says_so(tmp_path: Path) -> None:
    metadata = read_header(convert(make(tmp_path / "folder", "dream"), tmp_path / "out.gguf")).metadata
    assert metadata["diffusion.shift_logits"] is True
    assert metadata["dllm.mask_token_id"] == MASK
    assert "dllm.preset" not in metadata


def test_an_ordinary_llama_is_the_default_models_base(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "diffullama", tie_word_embeddings=True)
    out = convert_base(folder, tmp_path / "out.gguf", "F32")
    metadata = read_header(out).metadata
    assert not [key for key in metadata if key.startswith(("dllm.", "diffusion."))]
    found, memory = llama_logits(out, some_ids(), causal=True)
    expected = torch_logits(folder, some_ids(), causal=True, family="diffullama")
    assert memory
    assert float((found - expected).abs().max()) <= 1e-4
