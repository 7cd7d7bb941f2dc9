"""A conversion that ends early leaves what was there; one that runs holds one tensor at a time."""

import errno
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.header import read_header
from dllm_plugins.llama_cpp.convert import convert

from ..forked import run
from .checkpoints import make


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
from dllm_plugins.llama_cpp.convert import convert

def progress(stage, done, total):
    if stage == sys.argv[3] and done:
        os.kill(os.getpid(), signal.SIGKILL)

convert(sys.argv[1], Path(sys.argv[2]), "Q8_0", progress=progress)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["write", "quantise"])
def test_killing_it_leaves_the_old_file_and_no_hindrance(stage: str, tmp_path: Path) -> None:
    folder, out = make(tmp_path / "folder", "dream"), tmp_path / "out.gguf"
    out.write_bytes(b"old")
    assert run(KILLED, str(folder), str(out), stage).code == -signal.SIGKILL
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
from dllm_plugins.llama_cpp.convert import convert

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

seen = []
def progress(stage, done, total):
    seen.append(own())

convert(sys.argv[1], Path(sys.argv[2]), "F32", progress=progress)
print(max(seen) - seen[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """The stored weights are mapped from their file; only what is being written is the process's own."""
    folder = make(tmp_path / "folder", "dream", torch.bfloat16, num_hidden_layers=24, intermediate_size=8192)
    whole = (folder / "model.safetensors").stat().st_size
    done = run(MEASURED, str(folder), str(tmp_path / "out.gguf"))
    assert done.code == 0, done.stderr
    assert int(done.stdout.split()[-1]) < whole / 4
