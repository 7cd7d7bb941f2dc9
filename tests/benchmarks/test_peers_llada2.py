"""diffusers' LLaDA2Pipeline and transformers' DiffusionGemma beside ours, on tiny checkpoints: the same tokens."""

import sys
from pathlib import Path

import pytest
import torch

from peers import diffusers_llada2
from peers import models
from peers.diffusers_llada2 import Experts
from peers.peer import Setup
from peers.peer import Size
from peers.peer import Skip
from peers.transformers_gemma import Gemma
from peers.transformers_gemma import gemma

EXPERTS = Experts(512, 48, 4, 2, layers=3, experts=8, chosen=2, groups=4, inner=24, dense=64)
CANVASES = Gemma(512, 48, 4, 2, layers=6, experts=4, chosen=2, inner=16, dense=64, window=16, canvas=8)


def setup(folder: Path, size: str, dtype: torch.dtype = torch.float32) -> Setup:
    return Setup(Size.parse(size), dtype, folder)


@pytest.mark.parametrize("size", ["p64n32", "p50n46"])
def test_llada2_pipeline(tmp_path: Path, size: str) -> None:
    """Whole blocks and a first block that begins in the prompt; theirs makes its extra pass a block."""
    pytest.importorskip("diffusers")
    made = diffusers_llada2.llada2(setup(tmp_path, size), EXPERTS)
    ours, theirs = made.ours(), made.theirs()
    assert ours.tokens == theirs.tokens
    assert len(set(ours.tokens)) > 8
    assert ours.passes <= theirs.passes
    assert ours.rows < theirs.rows
    assert made.theirs() == theirs


def test_dense_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block decoder says what transformers' class says behind the pipeline."""
    pytest.importorskip("diffusers")
    shape = models.Shape(512, width=48, inner=64, layers=2, heads=3, kv_heads=1)
    for name, value in {"SHAPE": shape, "MASK": 511, "SPECIAL": (0, 1, 2, 511)}.items():
        monkeypatch.setattr(models, name, value)
    made = diffusers_llada2.dense(setup(tmp_path, "p64n64"))
    assert made.ours().tokens == made.theirs().tokens


def test_without_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is skipped, with what to install."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(Skip, match="pip install diffusers"):
        diffusers_llada2.llada2(setup(tmp_path, "p64n32"), EXPERTS)


def test_half_blocks_and_canvases_are_refused(tmp_path: Path) -> None:
    """Where the other side would compute something else."""
    with pytest.raises(Skip, match="p64n30"):
        diffusers_llada2.llada2(setup(tmp_path, "p64n30"), EXPERTS)
    with pytest.raises(Skip, match="p64n30"):
        gemma(setup(tmp_path, "p64n30"), CANVASES)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_diffusion_gemma(tmp_path: Path) -> None:
    """Draw by draw; theirs makes one more pass a canvas, for what it encodes."""
    made = gemma(setup(tmp_path, "p20n16"), CANVASES)
    ours, theirs = made.ours(), made.theirs()
    assert ours.tokens == theirs.tokens
    assert theirs.passes == ours.passes + 2
    assert theirs.rows == ours.rows
