"""A trained model as a folder in the hub's format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerFast


def write_model(
    folder: Path,
    model: nn.Module,
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write config, generation config, tokenizer, and the weights in bfloat16; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", {**config, "dtype": "bfloat16"})
    _write(folder / "generation_config.json", generation)
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
