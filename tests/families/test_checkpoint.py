"""Loading: what is refused, shards, dtypes, device maps, memory."""

import gc
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.layout import name_of

from ..golden.cases import CLONED
from .loading_memory import loading_memory
from .loading_memory import needs_proc


@pytest.fixture
def llada(tmp_path: Path) -> Path:
    """A copy of a tiny LLaDA checkpoint, to be damaged."""
    return Path(shutil.copytree(CLONED["llada_dense"] / "checkpoint", tmp_path / "llada"))


def change(folder: Path, **values: Any) -> None:
    """Set keys of a folder's config.json."""
    position = folder / "config.json"
    position.write_text(json.dumps({**json.loads(position.read_text()), **values}))


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change a folder's tensors."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def shard(folder: Path) -> dict[str, str]:
    """Split a folder's weights in two; returns the weight map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"part-1.safetensors": names[::2], "part-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    found = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": found}))
    return found


def test_shards_and_dtypes(llada: Path) -> None:
    """The same model from two files, in the checkpoint's dtype or another."""
    assert open_checkpoint(llada).layout.name == "llada"
    whole = load_checkpoint(open_checkpoint(llada))
    shard(llada)
    parts = load_checkpoint(open_checkpoint(llada))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))
    half = load_checkpoint(open_checkpoint(llada), dtype=torch.bfloat16)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert not half.training


def test_split_over_cpu_and_disk(llada: Path, tmp_path: Path) -> None:
    """accelerate keeps some layers on disk; the logits are the same."""
    ids = torch.arange(5, 15)[None]
    whole = load_checkpoint(open_checkpoint(llada))
    positions = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.norm": "cpu"}
    positions |= {"lm_head": "cpu", "model.rotary_emb": "cpu"}
    spread = load_checkpoint(open_checkpoint(llada), device_map=positions, offload_folder=tmp_path / "offload")
    assert any(weight.is_meta for weight in spread.parameters())
    with torch.inference_mode():
        assert torch.equal(whole(ids).logits, spread(ids).logits)


@pytest.mark.parametrize("on_disk", ["model.layers.1", "model.embed_tokens", "lm_head"])
def test_decoding_from_cpu_and_disk(llada: Path, tmp_path: Path, on_disk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever part is on disk, `load_model` decodes the same, and leaves no file behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    positions = dict.fromkeys(("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm"), "cpu")
    positions |= {"lm_head": "cpu", "model.rotary_emb": "cpu", on_disk: "disk"}
    request = Request([5, 6, 7], SamplingConfig(max_new_tokens=8, block_length=4, steps=4), stop_ids=frozenset())
    whole = load_model(str(llada), mask_id=236, dtype="float32", device="cpu")
    spread = load_model(str(llada), mask_id=236, dtype="float32", device_map=positions)
    network: Any = spread.denoiser.model  # type: ignore[attr-defined]
    assert any(weight.is_meta for weight in network.parameters())
    assert spread.engine().generate([request])[0].tokens == whole.engine().generate([request])[0].tokens
    (folder,) = tmp_path.glob("dllm-offload-*")
    del spread, network
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: change(folder, architectures=["GPT5"]), r"GPT5.*known families"),
        (lambda folder: change(folder, architectures=["DreamForCausalLM"]), "refused: DreamReasoner"),
        (lambda folder: change(folder, architectures=None), "no family knows"),
        (lambda folder: change(folder, alibi=True), "alibi=True"),
        (lambda folder: change(folder, block_type="sequential"), "block_type='sequential'"),
        (lambda folder: change(folder, n_layers=3), "no tensor"),
        (lambda folder: change(folder, n_layers=1), "does not account for"),
        (lambda folder: change(folder, mlp_hidden_size=80), "config.json says"),
        (lambda folder: change(folder, weight_tying=True), "lm_head.weight differs from"),
        (lambda folder: (folder / "config.json").unlink(), "cannot read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no \*.safetensors"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "is a pickle"),
        (lambda folder: rewrite(folder, lambda t: t.pop("model.transformer.ln_f.weight")), "no tensor 'model.norm"),
        (lambda folder: rewrite(folder, lambda t: t.update(more=torch.ones(1))), "holds 'more'"),
    ],
)
def test_what_does_not_fit_is_refused(llada: Path, damage: Callable[[Path], Any], words: str) -> None:
    """With the value and what is wrong about it; there is no partial model."""
    damage(llada)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(open_checkpoint(llada))


def test_a_truncated_file(llada: Path) -> None:
    """Cut anywhere: in the header, behind it, in the data."""
    position = llada / "model.safetensors"
    data = position.read_bytes()
    header = struct.unpack("<Q", data[:8])[0]
    for length in (4, 8 + header // 2, 8 + header, len(data) - 1):
        position.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(open_checkpoint(llada))


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "sub/part.safetensors", "part.bin", 7])
def test_an_index_that_leaves_the_folder(llada: Path, name: Any) -> None:
    """Only safetensors files of the folder itself."""
    found = shard(llada)
    found[next(iter(found))] = name
    (llada / "model.safetensors.index.json").write_text(json.dumps({"weight_map": found}))
    with pytest.raises(CheckpointError, match="not a safetensors file of this folder"):
        open_checkpoint(llada)


def test_other_damage_of_an_index(llada: Path) -> None:
    """A file that is missing, a map that is none, a tensor in two files."""
    shard(llada)
    both = load_file(llada / "part-2.safetensors") | load_file(llada / "part-1.safetensors")
    save_file(both, llada / "part-2.safetensors")
    with pytest.raises(CheckpointError, match="again"):
        load_checkpoint(open_checkpoint(llada))
    (llada / "part-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"part-2.safetensors, which is not in"):
        open_checkpoint(llada)
    (llada / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    with pytest.raises(CheckpointError, match="cannot read"):
        open_checkpoint(llada)


def test_families_that_look_like_ordinary_models(llada: Path) -> None:
    """They load only under their name, and a name that contradicts the config is refused."""
    change(llada, architectures=["Qwen2ForCausalLM"], model_type="qwen2")
    with pytest.raises(CheckpointError, match="family='open_dcoder'"):
        open_checkpoint(llada)
    assert open_checkpoint(llada, "open_dcoder").layout.shifted
    with pytest.raises(CheckpointError, match="but family 'sdar' has"):
        open_checkpoint(llada, "sdar")
    with pytest.raises(CheckpointError, match="unknown family 'nonesuch'"):
        open_checkpoint(llada, "nonesuch")


LOAD = """
import torch
from dllm_plugins.families.checkpoint import load_checkpoint, open_checkpoint

def load(place):
    return load_checkpoint(open_checkpoint(place), dtype=torch.bfloat16)
"""


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_no_second_copy_of_the_weights(llada: Path, tmp_path: Path, stored: torch.dtype) -> None:
    """Peak anonymous memory stays below 1.15 times the weights, converted, multiplied with scales, or not."""
    large = Path(shutil.copytree(llada, tmp_path / "large"))
    change(large, d_model=768, n_heads=8, n_kv_heads=8, mlp_hidden_size=3072, n_layers=6, embedding_size=2000)
    inside = {"attn_norm": (768,), "ff_norm": (768,), "ff_proj": (3072, 768), "up_proj": (3072, 768)}
    inside |= {"ff_out": (768, 3072), **dict.fromkeys(("q_proj", "k_proj", "v_proj", "attn_out"), (768, 768))}
    shapes: dict[str, tuple[int, ...]] = {"wte": (2000, 768), "ln_f": (768,), "ff_out": (2000, 768)}
    shapes |= {f"blocks.{layer}.{name}": shape for layer in range(6) for name, shape in inside.items()}
    tensors = {f"model.transformer.{name}.weight": torch.ones(shape, dtype=stored) for name, shape in shapes.items()}
    if stored == torch.float8_e4m3fn:
        norms = {name: tensor.bfloat16() for name, tensor in tensors.items() if tensor.ndim == 1}
        tensors |= norms | {f"{name}_scale": torch.tensor(2.0) for name in tensors.keys() - norms.keys()}
        change(large, quantization_config={"quant_method": "fp8"})
    save_file(tensors, large / "model.safetensors")
    found = loading_memory(LOAD, llada, large)
    assert found["size"] > 110e6
    assert found["peak"] <= 1.15 * found["size"], found


@pytest.mark.parametrize(
    ("position", "name"),
    [
        ("/models/dreamon/Dream-v0-Base-7B/", "dream-v0-base-7b"),
        ("inclusionAI/LLaDA2.0-mini", "llada2.0-mini"),
        ("/cache/hub/models--inclusionAI--LLaDA2.1-mini/snapshots/0a1b2c", "llada2.1-mini"),
        ("", ""),
    ],
)
def test_a_checkpoints_own_name(position: str, name: str) -> None:
    """Folders above it say nothing about it."""
    assert name_of(position) == name


@pytest.mark.parametrize("mask_id", [-1, 100_000])
def test_a_mask_outside_the_vocabulary(llada: Path, mask_id: int) -> None:
    """The caller is told of the caller's mistake, not of the checkpoint's."""
    with pytest.raises(OptionError, match=f"mask_id={mask_id} is outside 0 to"):
        load_model(str(llada), mask_id=mask_id, dtype="float32", device="cpu")
