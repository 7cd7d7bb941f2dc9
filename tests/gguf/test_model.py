"""Weights of a file: loaded, refused, and given back."""

import os
from pathlib import Path

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp import model as module
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.size import Size

from . import tiny

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("architecture", "memory"), [("llama", True), ("dream", False), ("llada", False)])
def test_what_a_file_holds(tmp_path: Path, architecture: str, memory: bool) -> None:
    model = GgufModel(tiny.tiny(tmp_path, architecture).path)
    assert (model.vocabulary, model.width, model.context) == (tiny.VOCABULARY, 96, tiny.CONTEXT)
    assert model.has_memory is memory
    assert model.metadata["general.architecture"] == architecture
    model.close()


def test_threads_are_the_cores_this_process_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.tiny(tmp_path).path
    monkeypatch.setattr(module, "QUOTA", tmp_path / "absent")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert GgufModel(path).threads == 3
    assert GgufModel(path, threads=1).threads == 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert GgufModel(path).threads == 7
    for quota, threads in (("250000 100000", 2), ("max 100000", 7), ("50000 100000", 1), ("900000 100000", 7)):
        (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(module, "QUOTA", tmp_path / "cpu.max")
        assert GgufModel(path).threads == threads
    with pytest.raises(OptionError, match="threads=0"):
        GgufModel(path, threads=0)


def test_mapped_or_read_they_are_the_same(tmp_path: Path) -> None:
    path, rows = tiny.tiny(tmp_path).path, []
    for mmap in (True, False):
        context = Context(GgufModel(path, mmap=mmap), "F32")
        rows.append(
            context.decode([Span(context.open(), 0, tiny.tokens(5), wanted=range(5))], causal=True)[0].tobytes()
        )
    assert rows[0] == rows[1]


def test_damaged_files_do_not_reach_llama_cpp(tmp_path: Path) -> None:
    whole = tiny.tiny(tmp_path).path.read_bytes()
    for number, data in enumerate([b"", b"PK\x03\x04" + whole[4:], whole[:5000], whole[:-100]]):
        path = tmp_path / f"damaged-{number}.gguf"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=path.name):
            GgufModel(path)
    with pytest.raises(CheckpointError, match="absent"):
        GgufModel(tmp_path / "absent.gguf")


def test_what_llama_cpp_refuses_is_said_in_its_words(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "half.gguf"
    model = tiny.torch_model("llama")
    del model.model.layers[1].mlp.up_proj
    tiny.write(model, path, "llama")
    with pytest.raises(GgufError, match=r"half.gguf.*tensor 'blk.1.ffn_up.weight' not found"):
        GgufModel(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("function", "answer", "reason"),
    [
        ("llama_model_n_swa", 128, "sliding window"),
        ("llama_model_is_recurrent", True, "running state"),
        ("llama_model_is_hybrid", True, "running state beside"),
        ("llama_model_has_encoder", True, "encoder"),
        ("llama_model_rope_type", 8, "several positions"),
    ],
)
def test_memories_that_cannot_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, answer: int, reason: str
) -> None:
    path = tiny.tiny(tmp_path).path
    monkeypatch.setattr(library(), function, lambda model: answer)
    with pytest.raises(GgufError, match=f"{path.name}.*{reason}"):
        GgufModel(path)


def test_closing_ends_everything_and_can_be_repeated(tmp_path: Path) -> None:
    model = GgufModel(tiny.tiny(tmp_path).path)
    context = Context(model)
    stream = context.open()
    model.close()
    model.close()
    assert model.closed
    assert context.closed
    with pytest.raises(GgufError, match="closed; load it again"):
        context.decode([Span(stream, 0, [1])], causal=True)
    with pytest.raises(GgufError, match="closed; load it again"):
        Context(model)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own count")
def test_closing_gives_the_memory_back(tmp_path: Path) -> None:
    model = GgufModel(tiny.tiny(tmp_path).path)
    before = resident()
    Context(model, "F32", Size(streams=16, positions=65536))
    # 2 layers of keys and values, 32 numbers of 4 bytes a position: 512 MB, which llama.cpp fills with zeros.
    # Half of that may lie about in a process that has run other tests, or be used again.
    assert resident() - before < 256e6, "a context that nobody holds is gone"
    context = Context(model, "F32", Size(streams=16, positions=65536))
    assert resident() - before > 256e6
    model.close()
    assert context.closed
    assert resident() - before < 256e6
