"""Weights rounded to few bits of mantissa."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dllm_plugins
from dllm_plugins.training.blocks.compact import compact
from dllm_plugins.training.blocks.compact import rounded
from dllm_plugins.training.blocks.evaluate import shipped_model

SHIPPED = Path(dllm_plugins.__file__).parent / "data" / "presets" / "sudoku"


@pytest.mark.parametrize("bits", [1, 2, 6])
def test_weights_are_rounded_to_the_nearest(bits: int) -> None:
    """Half a step away at most, and another rounding changes nothing."""
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = rounded(weight, bits)
    step = 2.0 ** (weight.float().abs().log2().floor() - bits)
    assert ((found.float() - weight.float()).abs() <= step / 2).all()
    assert torch.equal(rounded(found, bits), found)
    assert torch.equal(rounded(torch.tensor([1.0, -1.0, 0.0, 1.99]).bfloat16(), bits)[:3], torch.tensor([1.0, -1, 0]))


def test_the_shipped_puzzle_model_is_made_by_this(tmp_path: Path) -> None:
    """Its weights and its small files, from those of the rules' benchmark."""
    compact(shipped_model(), tmp_path / "made", 2)
    made, shipped = load_file(tmp_path / "made" / "model.safetensors"), load_file(SHIPPED / "model.safetensors")
    assert made.keys() == shipped.keys()
    assert all(torch.equal(made[name], shipped[name]) for name in made)
    small = [file.name for file in SHIPPED.iterdir() if file.name not in ("README.md", "model.safetensors")]
    assert all((tmp_path / "made" / name).read_bytes() == (SHIPPED / name).read_bytes() for name in small)
