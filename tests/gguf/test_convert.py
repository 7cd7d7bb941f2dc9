"""What the converter writes is what torch computes; what llama.cpp would compute otherwise is refused."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.convert import convert
from dllm_plugins.gguf.convert import convert_base
from dllm_plugins.gguf.header import read_header

from .checkpoints import KINDS
from .checkpoints import MASK
from .checkpoints import VOCABULARY
from .checkpoints import YARN
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
    folder = make(tmp_path / "LLaDA2.1-tiny", "llada2", eos_token_id=3)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 5]}))
    metadata = read_header(convert(folder, tmp_path / "out.gguf", mask_id=9)).metadata
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


LLAMA3 = KINDS["llama3-rotary"].config["rope_parameters"]
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("dream", {"head_dim": 8}, "4 heads of 8 in a width of 64"),
        ("rnd1", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("sdar_moe", {"mlp_only_layers": [0]}, "layers without experts"),
        ("sdar", {"rope_parameters": {**YARN, "beta_fast": 16.0}}, "beta_fast=16.0"),
        ("sdar", {"rope_parameters": {**YARN, "truncate": False}}, "truncate=False"),
        ("sdar", {"rope_parameters": {**YARN, "llama_4_scaling_beta": 0.5}}, "llama_4_scaling_beta=0.5"),
        ("sdar", {"rope_parameters": {**YARN, "rope_type": "dynamic"}}, "rope_type='dynamic'"),
        ("diffullama", {"rope_parameters": PARTIAL}, "partial_rotary_factor=0.5"),
        ("dream", {"rope_parameters": LLAMA3}, "rope_type='llama3'"),
        ("sdar", {"attention_bias": True}, "self_attn.o_proj.bias"),
        ("sdar", {"mask_token_id": 5000}, "mask_token_id=5000"),
    ],
)
def test_what_a_graph_computes_otherwise_is_refused(
    name: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    folder = make(tmp_path / "folder", name, **config)
    with pytest.raises(CheckpointError, match=re.escape(reason)):
        convert(folder, tmp_path / "out.gguf", family=KINDS[name].family)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_classes_llama_cpp_has_no_graph_for_are_refused(tmp_path: Path) -> None:
    config = {"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "vocab_size": 20}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no graph of llama\.cpp.*use backend='torch'"):
        convert(folder, tmp_path / "out.gguf")


def test_wrong_options_name_the_remedy(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "dream")
    with pytest.raises(OptionError, match=r"'Q9'.*Q4_0"):
        convert(folder, tmp_path / "out.gguf", "Q9")
    with pytest.raises(OptionError, match=r"preset='sdar'.*dreamon"):
        convert(folder, tmp_path / "out.gguf", preset="sdar")
    with pytest.raises(OptionError, match="a file in a folder that exists"):
        convert(folder, tmp_path)
    with pytest.raises(OptionError, match="a file in a folder that exists"):
        convert(folder, tmp_path / "none" / "out.gguf")


def test_weights_too_large_for_half_precision_leave_the_old_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "dream")
    out = convert(folder, tmp_path / "out.gguf", "F32")
    before = out.read_bytes()
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][3, 5] = 1e6
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not finite in F16"):
        convert(folder, out, "F16")
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out.gguf"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = make(tmp_path / "folder", "dream"), tmp_path / "out.gguf"
    out.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(CheckpointError, match=r"needs 0 MiB.*free some"):
            convert(folder, out)

    def full(*_given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensor_data", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left"):
        convert(folder, out)
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out.gguf"]


KILLED = """
import os, signal, sys
from pathlib import Path
from dllm_plugins.gguf.convert import convert

def progress(stage, done, total):
    if stage == sys.argv[3] and done:
        os.kill(os.getpid(), signal.SIGKILL)

convert(sys.argv[1], Path(sys.argv[2]), "Q8_0", progress=progress)
"""


@pytest.mark.parametrize("stage", ["write", "quantise"])
def test_killing_it_leaves_the_old_file_and_no_hindrance(stage: str, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "folder", "dream"), tmp_path / "out.gguf"
    out.write_bytes(b"old")
    command = [sys.executable, "-c", KILLED, str(folder), str(out), stage]
    code = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    assert code == -signal.SIGKILL
    assert out.read_bytes() == b"old"
    convert(folder, out, "Q8_0")
    read_header(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out.gguf"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="locks are of Unix")
    folder, out = make(tmp_path / "folder", "dream"), tmp_path / "out.gguf"

    def again(*_said: object) -> None:
        with pytest.raises(CheckpointError, match="another process is writing"):
            convert(folder, out, "F32")

    convert(folder, out, "F32", progress=again)
    assert read_header(out).architecture == "dream"


MEASURED = """
import sys
from pathlib import Path
import torch
from dllm_plugins.gguf.convert import convert

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

seen = []
def progress(stage, done, total):
    seen.append(own())

convert(sys.argv[1], Path(sys.argv[2]), "F32", progress=progress)
print(max(seen) - seen[0])
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """The stored weights are mapped from their file; only what is being written is the process's own."""
    folder = make(tmp_path / "folder", "dream", torch.bfloat16, num_hidden_layers=24, intermediate_size=8192)
    whole = (folder / "model.safetensors").stat().st_size
    command = [sys.executable, "-c", MEASURED, str(folder), str(tmp_path / "out.gguf")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert int(told[-1]) < whole / 4
