"""A trained cell as a folder in the hub's format."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from dllm_plugins.reasoning.path import ANSWERS
from dllm_plugins.reasoning.path import END
from dllm_plugins.reasoning.path import FROM
from dllm_plugins.reasoning.task import Task
from dllm_plugins.training.reasoning.families import KINDS
from dllm_plugins.training.reasoning.methods import Method
from dllm_plugins.training.reasoning.recipe import MASK
from dllm_plugins.training.reasoning.recipe import UNKNOWN
from dllm_plugins.training.reasoning.recipe import CellRecipe
from dllm_plugins.training.reasoning.recipe import model_config
from dllm_plugins.training.reasoning.recipe import words_of

#: What was asked is the prompt.
_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def tokenizer(task: Task) -> PreTrainedTokenizerFast:
    """One token a word: a cell of a Sudoku, a node of a path. White space only keeps words apart."""
    words = words_of(task)
    found = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    if ANSWERS in words:
        found.normalizer = normalizers.Replace(FROM, FROM + " ")
        found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        found.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s"), ""), normalizers.Replace("0", ".")])
        found.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        found.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=found, mask_token=MASK, unk_token=UNKNOWN)
    fast.chat_template = _TEMPLATE + (" " + ANSWERS if ANSWERS in words else "")
    return fast


def export(model: nn.Module, method: Method, recipe: CellRecipe, task: Task, folder: Path) -> None:
    """Write config, weights in bfloat16, tokenizer and generation config."""
    folder.mkdir(parents=True, exist_ok=True)
    words = words_of(task)
    end = words.index(END) if ANSWERS in words else None
    config: dict[str, Any] = {
        **KINDS[method.kind],
        **model_config(recipe, task),
        "mask_token_id": words.index(MASK),
        "eos_token_id": end,
        "dtype": "bfloat16",
    }
    if method.kind in ("blocks", "uniform"):
        config["block_size"] = recipe.block if method.kind == "blocks" else task.answer
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"max_new_tokens": task.answer, "eos_token_id": end})
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(task).save_pretrained(folder)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
