"""The low-rank pairs as an adapter: llama.cpp computes with it what torch does, and nothing is lost on the way."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dllm_plugins.default_model.base import FolderBase
from dllm_plugins.default_model.llama_cpp import base_file
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.gguf.adapter import read_adapter
from dllm_plugins.gguf.adapter import write_adapter
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.tensors import read_tensor
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.context import Context
from dllm_plugins.llama_cpp.convert import convert_base
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.llama_cpp.placed import ARCHITECTURE
from dllm_plugins.llama_cpp.placed import PlacedModel

from . import tri_mode

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


def written(
    files: tri_mode.Files, out: Path, architecture: str = ARCHITECTURE, dtype: torch.dtype = torch.float32
) -> Path:
    write_adapter(files.low_rank(dtype), files.shape, architecture, out)
    return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_lost(files: tri_mode.Files, tmp_path: Path, dtype: torch.dtype) -> None:
    """Fused pairs put together again are those of the checkpoint, scaled; all else is as it was."""
    path = written(files, tmp_path / "a.gguf", dtype=dtype)
    weights, header = files.low_rank(dtype), read_header(path)

    def both(layer: int, *names: str) -> tuple[torch.Tensor, torch.Tensor]:
        found = [
            [read_tensor(header, header.tensors[f"blk.{layer}.{name}.weight.lora_{x}"]) for x in "ab"] for name in names
        ]
        assert all(torch.equal(first, found[0][0]) for first, _ in found)
        return found[0][0], torch.cat([second for _, second in found])

    for layer, pairs in enumerate(weights.pairs):
        parts = [("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)]
        for (down, up), names in zip(pairs, parts, strict=True):
            first, second = both(layer, *names)
            assert torch.equal(first, down)
            assert torch.equal(second, up * SCALE)
    extras = read_adapter(path, files.shape.hidden)
    assert torch.equal(extras.mask_embedding, weights.mask_embedding.float())
    assert torch.equal(extras.chain_down, weights.chain_down)
    assert torch.equal(extras.chain_up, weights.chain_up)
    assert extras.draft_tokens is not None
    assert weights.draft_tokens is not None
    assert torch.equal(extras.draft_tokens, weights.draft_tokens.long())
    assert header.metadata["dllm.denoiser.rank"] == str(tri_mode.RANK)


def test_an_ordinary_llama_takes_it_too(files: tri_mode.Files, tmp_path: Path) -> None:
    """With query and key arranged as that graph's; a block behind a causal prefix, as torch computes it."""
    base = convert_base(files.folder, tmp_path / "base.gguf", "F32")
    path = written(files, tmp_path / "adapter.gguf", "llama")
    model = GgufModel(base)
    adapter = library().llama_adapter_lora_init(model.pointer, os.fsencode(path))
    context = Context(model, "F32")
    stream = context.open()
    context.decode([Span(stream, 0, range(30, 50))], causal=True)
    context.use([(adapter, 1.0)])
    mask = np.tile(read_adapter(path, model.width).mask_embedding.numpy(), (6, 1))
    found = context.decode([Span(stream, 20, embeddings=mask, wanted=range(6))], causal=False, hidden=True)[0]
    denoiser = files.torch()
    row = denoiser.open_row()
    clean = tri_mode.clean(row, list(range(30, 50)), 0)
    expected = denoiser.forward([clean, tri_mode.opened(row, denoiser.spec.mask_id, list(range(20, 26)), ((0, 20),))])[
        1
    ]
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    model.close()


def test_no_shortlist(files: tri_mode.Files, tmp_path: Path) -> None:
    write_adapter(replace(files.low_rank(), draft_tokens=None), files.shape, ARCHITECTURE, tmp_path / "a.gguf")
    assert read_adapter(tmp_path / "a.gguf", files.shape.hidden).draft_tokens is None


def test_what_is_no_adapter_of_ours_is_refused(files: tri_mode.Files, tmp_path: Path) -> None:
    path = written(files, tmp_path / "a.gguf")
    with pytest.raises(CheckpointError, match="width is 64"):
        read_adapter(path, 64)
    with pytest.raises(CheckpointError, match=r"dllm\.format=None"):
        read_adapter(convert_base(files.folder, tmp_path / "base.gguf", "F32"), files.shape.hidden)
    short = tmp_path / "short.gguf"
    short.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="truncated"):
        read_adapter(short, files.shape.hidden)
    path.write_bytes(path.read_bytes().replace(b"dllm.chain_up_norm.weight", b"dllm.chain_xx_norm.weight"))
    with pytest.raises(CheckpointError, match="chain_up"):
        read_adapter(path, files.shape.hidden)


def test_an_adapter_of_another_base_is_refused(
    files: tri_mode.Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By llama.cpp, whose reason is in the message."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path / "cache"))
    model = PlacedModel(base_file(FolderBase(files.folder), "F32"))
    wider = replace(files.shape, intermediate=files.shape.intermediate // 2)
    write_adapter(files.low_rank(), wider, ARCHITECTURE, tmp_path / "a.gguf")
    with pytest.raises(GgufError, match="incorrect shape"):
        model.adapter(tmp_path / "a.gguf")
    model.close()
