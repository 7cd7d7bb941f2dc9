"""The base under its new format, before a step is trained: the same weights, a mask token, another config."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from dllm_plugins.default_model.base import base_place
from dllm_plugins.default_model.unpack import unpack
from dllm_plugins.errors import CheckpointError
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.files.reading import reading
from dllm_plugins.files.replacing import read_config
from dllm_plugins.files.whole import whole
from dllm_plugins.training.conversion.targets import converted

#: What dllm adds to tokenizers without a mask (ZHZisZZ/dllm ca17675, dllm/utils/models.py).
MASK = "<|mask|>"


def place_of(base: str | None, spare: Path) -> Path:
    """The base as a folder in the hub's format.

    :param base: a folder, a hub id, a GGUF file of the default base, or None for the default base.
    :param spare: where a file is unpacked.
    :raises CheckpointError: for one that cannot be had.
    :raises DownloadError: if the default base was never set up.
    """
    if base is None or Path(base).suffix.lower() != ".gguf":
        return base_place(base)
    if not spare.exists():
        with reading(base), whole(spare) as part:
            unpack(Path(base), part)
    return spare


def write_start(base: Path, to: str, block: int, folder: Path) -> None:
    """Write the folder that training begins with, unless it is there.

    :raises CheckpointError: for a base that is damaged, quantised, or of a shape that cannot be converted.
    :raises OptionError: for a target that does not take this shape.
    """
    if folder.exists():
        return
    found = read_config(base)
    # Before anything is read: what it would say of the mask is not known yet.
    converted(found, to, 0, block)
    if "quantization_config" in found:
        raise CheckpointError(f"{base} is quantised, and training needs plain weights; give the one it was made of")
    model, tokenizer = _base_model(base), load_tokenizer(base)
    mask_id = add_mask(model, tokenizer)
    with whole(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        config = converted(read_config(part), to, mask_id, block)
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _base_model(base: Path) -> Any:
    with reading(base):
        found: Any = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    model, told = found
    if told["missing_keys"]:
        raise CheckpointError(f"{base} lacks weights, such as {min(told['missing_keys'])}; download it again")
    return model


def add_mask(model: Any, tokenizer: Any) -> int:
    """The id of the mask token, which is added where the tokenizer has none.

    Its embedding is the mean of all others; the base's own for it, where its vocabulary is larger than its
    tokenizer's, was never trained.
    """
    if tokenizer.mask_token_id is not None and tokenizer.mask_token_id < model.config.vocab_size:
        return int(tokenizer.mask_token_id)
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK})
    mask_id, known = int(tokenizer.mask_token_id), min(len(tokenizer) - 1, model.config.vocab_size)
    if mask_id >= model.config.vocab_size:
        model.resize_token_embeddings(mask_id + 1, mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            table[mask_id] = table[:known].float().mean(0).to(table.dtype)
    return mask_id


def copy_tokenizer(start: Path, folder: Path) -> None:
    """The tokenizer's files, which saving a model does not write."""
    for path in start.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(path, folder)
