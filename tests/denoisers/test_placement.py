"""Devices, dtypes and accelerate's device maps."""

from pathlib import Path

import pytest
import torch

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.low_rank import with_low_rank
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.denoisers.placement import place
from dllm_plugins.denoisers.weights import load_llama
from dllm_plugins.files.replacing import read_config

SPLIT = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "meta", "model.norm": "cpu"}


@pytest.mark.parametrize(
    "device_map", ["auto", {"": "cpu"}, {"model": "cpu", "model.layers.1": "cpu", "lm_head": "cpu"}]
)
def test_a_device_map_changes_no_token(tiny: Model, tiny_folder: Path, device_map: str | dict[str, str | int]) -> None:
    """accelerate's choice and maps with entries of any depth."""
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    spread = load_model("dllm", base=tiny_folder, denoiser=denoiser, dtype="float32", device_map=device_map)
    assert spread.denoiser.spec.numerics == "row-invariant"
    request = Request([5, 9, 77], SamplingConfig(max_new_tokens=20))
    found, expected = (model.engine().generate([request])[0].tokens for model in (spread, tiny))
    assert found == expected


def test_layers_go_where_the_map_says(tiny_folder: Path) -> None:
    """Each layer with its low-rank pairs; the head stays with the embedding."""
    base = load_llama(tiny_folder, torch.float32)
    low_rank = load_low_rank(tiny_folder.parent / "denoiser.safetensors", base.shape, torch.float32)
    placed = with_low_rank(place(read_config(tiny_folder), base, torch.device("cpu"), {**SPLIT}), low_rank)
    assert [layer.qkv.device.type for layer in placed.layers] == ["cpu", "meta"]
    assert placed.low_rank is not None
    assert [layer[0].down.device.type for layer in placed.low_rank] == ["cpu", "meta"]
    assert placed.embedding.device.type == placed.head.device.type == placed.norm.device.type == "cpu"


def test_auto_device_and_dtype() -> None:
    """bfloat16 only where the hardware computes in it."""
    assert best_device("cpu") == torch.device("cpu")
    assert best_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    assert choose_dtype("float32", torch.device("cpu")) is torch.float32
    assert choose_dtype("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)
