"""The tiny model with room for prompts in bytes that tell of tools."""

import json
import shutil
from pathlib import Path

import pytest

from dllm_plugins import Model
from dllm_plugins import load_model


@pytest.fixture(scope="module")
def roomy(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    base = tmp_path_factory.mktemp("roomy") / "base"
    shutil.copytree(tiny_folder, base)
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (base / "config.json").write_text(json.dumps(config))
    denoiser = tiny_folder.parent / "denoiser.safetensors"
    return load_model("dllm", base=base, denoiser=denoiser, dtype="float32", device="cpu")
