"""A tri-mode checkpoint whose tensors do not fit its config is not loaded in part."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from dllm_plugins.errors import CheckpointError
from dllm_transformers import TriModeForCausalLM
from dllm_transformers.export import export


@pytest.fixture(scope="module")
def exported(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as one checkpoint, with a shortlist."""
    place = tmp_path_factory.mktemp("exported")
    source = tiny_folder.parent / "denoiser.safetensors"
    tensors = load_file(source) | {"draft_tokens": torch.tensor([3, 9], dtype=torch.int32)}
    save_file(tensors, place / "denoiser.safetensors", metadata={"format": "dllm-plugins low-rank denoiser 1"})
    return export(place / "model", base=tiny_folder, denoiser=place / "denoiser.safetensors", dtype="float32")


WEIGHT = "model.layers.1.mlp.up_proj.weight"
PAIR = "denoiser.layers.1.qkv.up"
DAMAGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "missing": lambda tensors: tensors.pop(WEIGHT),
    "of the denoiser, missing": lambda tensors: tensors.pop(PAIR),
    "surplus": lambda tensors: tensors.update({"model.more.weight": torch.zeros(2)}),
    "misshapen": lambda tensors: tensors.update({WEIGHT: tensors[WEIGHT][:-1].clone()}),
    "int8": lambda tensors: tensors.update({PAIR: tensors[PAIR].to(torch.int8)}),
    "an id too large": lambda tensors: tensors.update({"denoiser.draft_tokens": torch.tensor([3, 259])}),
    "ids of another number": lambda tensors: tensors.update({"denoiser.draft_tokens": torch.tensor([3])}),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("auto", [AutoModelForCausalLM, TriModeForCausalLM])
def test_damaged_tensors_are_refused(exported: Path, tmp_path: Path, auto: Any, damage: str) -> None:
    """transformers itself would fill in random numbers, or convert integers."""
    folder = shutil.copytree(exported, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    DAMAGES[damage](tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError):
        auto.from_pretrained(folder)


@pytest.mark.parametrize(
    "change", [{"denoiser_rank": 10**8}, {"denoiser_chain": 0}, {"denoiser_shortlist": 3}, {"num_hidden_layers": 10**7}]
)
def test_numbers_of_no_model_are_refused(exported: Path, tmp_path: Path, change: dict[str, int]) -> None:
    """Before a single layer is made."""
    folder = shutil.copytree(exported, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=next(iter(change))):
        AutoModelForCausalLM.from_pretrained(folder)


def test_a_whole_checkpoint_loads(exported: Path) -> None:
    """With the options that the Auto classes hand on."""
    model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    found = model.generate(torch.tensor([[1, 40, 41]]), max_new_tokens=4)
    assert found.shape[1] <= 7
