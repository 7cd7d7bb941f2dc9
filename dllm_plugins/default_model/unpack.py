"""The base model's GGUF file as a folder in the hub's format: weights dequantised to bfloat16, tokenizer, config.

What it writes is what transformers makes of the file, bit for bit (tests/default_model/test_unpack.py), without the
libraries that transformers needs for it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dllm_kernels.blocks import plain
from dllm_plugins.default_model.header import config_of
from dllm_plugins.default_model.header import ends_of
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.default_model.words import backend_of
from dllm_plugins.default_model.words import special_of
from dllm_plugins.default_model.words import template_of
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet


def unpack(file: Path, folder: Path, progress: Progress = quiet) -> None:
    """Write the folder.

    :param file: the GGUF file, checked.
    :param folder: made here.
    """
    from safetensors.torch import save_file

    progress("convert", 0, 3)
    folder.mkdir()
    stored = read_stored(file, words=True)
    metadata = stored.metadata
    _write_tokenizer(metadata, folder)
    progress("convert", 1, 3)
    tensors = {name: plain(weight).contiguous() for name, weight in stored.tensors.items()}
    progress("convert", 2, 3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for name, settings in (("config.json", config_of(metadata)), ("generation_config.json", ends_of(metadata))):
        (folder / name).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    progress("convert", 3, 3)


def _write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    backend_of(metadata).save(str(folder / "tokenizer.json"))
    settings = special_of(metadata) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template_of(metadata), encoding="utf-8")
