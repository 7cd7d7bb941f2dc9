"""Renamed copies compute the same and keep keys and values; the user's file is only read."""

import os
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from gguf import GGUFReader
from gguf import GGUFWriter

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.relabel import with_memory
from dllm_plugins.llama_cpp.convert import convert

from .checkpoints import VOCABULARY
from .checkpoints import make
from .passes import llama_logits
from .passes import torch_logits

TWINS = {"dream": "qwen2", "llada": "llama", "rnd1": "qwen3moe", "llada_moe": "hy_v3"}
IDS = torch.randint(0, VOCABULARY, (40,), generator=torch.Generator().manual_seed(2)).tolist()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.mark.parametrize("name", TWINS)
def test_the_copy_has_memory_and_computes_the_same(name: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", name)
    path = convert(folder, tmp_path / "a.gguf", "F32")
    before, state = path.read_bytes(), path.stat()
    copy = with_memory(read_header(path))
    assert path.read_bytes() == before
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert read_header(copy).architecture == TWINS[name]
    for causal in (False, True):
        found, memory = llama_logits(copy, IDS, causal=causal)
        assert memory
        expected = torch_logits(folder, IDS, causal=causal)
        assert float((found - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("name", ["dream", "llada_moe"])
def test_quantised_files_too(name: str, quant: str, tmp_path: Path) -> None:
    """The products are the same; attention with a memory is summed in another order."""
    path = convert(make(tmp_path / "folder", name, num_experts_per_tok=8), tmp_path / "a.gguf", quant)
    first, _ = llama_logits(path, IDS, causal=False)
    second, _ = llama_logits(with_memory(read_header(path)), IDS, causal=False)
    moved = float((first - second).square().mean().sqrt() / first.square().mean().sqrt())
    assert moved <= 0.02


def test_metadata_and_data_come_along(tmp_path: Path) -> None:
    path = convert(make(tmp_path / "folder", "rnd1"), tmp_path / "a.gguf", "Q8_0")
    header = read_header(path)
    copy = read_header(with_memory(header))
    assert copy.metadata["dllm.config"] == header.metadata["dllm.config"]
    renamed = {key.replace("rnd1.", "qwen3moe."): value for key, value in header.metadata.items()}
    renamed["general.architecture"] = "qwen3moe"
    assert {key: value for key, value in copy.metadata.items() if key != "dllm.filler"} == renamed
    assert copy.data_offset % 4096 == header.data_offset % 4096
    whole, other = path.read_bytes(), copy.path.read_bytes()
    for name, tensor in header.tensors.items():
        twin = copy.tensors[name]
        assert whole[tensor.offset :][: tensor.size] == other[twin.offset :][: twin.size]


def test_one_copy_a_file_and_a_new_one_when_it_changes(tmp_path: Path, cache: Path) -> None:
    path = convert(make(tmp_path / "folder", "dream"), tmp_path / "a.gguf", "F32")
    first = with_memory(read_header(path))
    made = first.stat().st_mtime_ns
    assert with_memory(read_header(path)) == first
    assert first.stat().st_mtime_ns == made
    raw = bytearray(path.read_bytes())
    raw[read_header(path).tensors["blk.1.ffn_up.weight"].offset] ^= 1
    path.write_bytes(raw)
    second = with_memory(read_header(path))
    assert second != first
    assert [item.name for item in cache.iterdir()] == [second.name]
    assert second.read_bytes()[-100:] == path.read_bytes()[-100:]


def test_files_that_have_memory_are_used_as_they_are(tmp_path: Path, cache: Path) -> None:
    path = convert(make(tmp_path / "folder", "sdar"), tmp_path / "a.gguf")
    assert with_memory(read_header(path)) == path
    assert not cache.exists()


def rewritten(source: Path, out: Path, tensor: str | None = None, **pairs: int) -> Path:
    """A copy with another tensor or other keys, as a converter of somebody else might write it."""
    reader, architecture = GGUFReader(source), read_header(source).architecture
    writer = GGUFWriter(out, architecture)
    for item in reader.fields.values():
        if not item.name.startswith(("GGUF.", "general.architecture", "tokenizer.", "dllm.")):
            writer.add_key_value(item.name, item.contents(), item.types[0])
    for key, value in pairs.items():
        writer.add_uint32(key.replace("__", "."), value)
    for found in reader.tensors:
        writer.add_tensor(found.name, found.data)
    if tensor is not None:
        writer.add_tensor(tensor, np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("dream", "output.bias"), ("llada", "blk.0.attn_output.bias"), ("llada", "rope_freqs.weight")],
)
def test_tensors_the_graphs_treat_differently_are_refused(name: str, tensor: str, tmp_path: Path, cache: Path) -> None:
    """dream and llada load these and do not use them; their twins would."""
    path = convert(make(tmp_path / "folder", name), tmp_path / "a.gguf", "F32")
    other = rewritten(path, tmp_path / "b.gguf", tensor)
    with pytest.raises(CheckpointError, match=f"{tensor}.*differently"):
        with_memory(read_header(other))
    assert not cache.exists()


def test_parts_of_a_file_are_refused(tmp_path: Path) -> None:
    path = convert(make(tmp_path / "folder", "dream"), tmp_path / "a.gguf", "F32")
    with pytest.raises(CheckpointError, match="--merge"):
        with_memory(read_header(rewritten(path, tmp_path / "b.gguf", split__count=2)))


def test_no_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    path = convert(make(tmp_path / "folder", "dream"), tmp_path / "a.gguf", "F32")
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())
    with pytest.raises(CheckpointError, match="DLLM_CACHE"):
        with_memory(read_header(path))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = convert(make(tmp_path / "folder", "dream"), tmp_path / "a.gguf", "F32")
    monkeypatch.setenv("DLLM_CACHE", str(path))
    with pytest.raises(CheckpointError, match=r"cannot be made.*DLLM_CACHE"):
        with_memory(read_header(path))


class _Usage:
    free = 10


def _copy(path: str) -> str:
    return str(with_memory(read_header(Path(path))))


def _set(name: str, value: str) -> None:
    os.environ[name] = value


@pytest.mark.slow
def test_processes_share_one_copy(tmp_path: Path, cache: Path) -> None:
    """Whoever comes second waits, and finds it there."""
    path = convert(make(tmp_path / "folder", "dream"), tmp_path / "a.gguf", "F32")
    server = get_context("forkserver")
    # Imported once for all of them; what the environment says is that of whoever came first.
    server.set_forkserver_preload([__name__])
    with server.Pool(3, _set, ("DLLM_CACHE", os.environ["DLLM_CACHE"])) as pool:
        found = set(pool.map(_copy, [str(path)] * 6))
    assert len(found) == 1
    assert [str(item) for item in cache.iterdir()] == list(found)
    assert read_header(Path(next(iter(found)))).architecture == "qwen2"
