"""A trained cell as a folder in the hub's format."""

from pathlib import Path
from typing import Any

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
from dllm_plugins.reasoning.path import PathTask
from dllm_plugins.reasoning.task import Task
from dllm_plugins.training.hub_folder import write_model
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
    """One token a word: a cell of a Sudoku, a node of a path, a literal, a digit. White space only keeps words apart.

    Words of one letter need none between them.
    """
    words = words_of(task)
    found = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    if all(len(word) == 1 for word in task.vocabulary):
        blanks = [] if "0" in words else [normalizers.Replace("0", ".")]
        found.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\s"), ""), *blanks])
        found.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        found.decoder = decoders.Fuse()
    else:
        found.normalizer = normalizers.Replace(FROM, FROM + " ")
        found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=found, mask_token=MASK, unk_token=UNKNOWN)
    fast.chat_template = _TEMPLATE + (" " + ANSWERS if isinstance(task, PathTask) else "")
    return fast


def export(model: nn.Module, method: Method, recipe: CellRecipe, task: Task, folder: Path) -> None:
    """Write config, weights in bfloat16, tokenizer and generation config."""
    words = words_of(task)
    end = words.index(END) if ANSWERS in words else None
    config: dict[str, Any] = {
        **KINDS[method.kind],
        **model_config(recipe, task),
        "mask_token_id": words.index(MASK),
        "eos_token_id": end,
    }
    if method.kind in ("blocks", "uniform"):
        config["block_size"] = recipe.block if method.kind == "blocks" else task.answer
    write_model(folder, model, config, {"max_new_tokens": task.answer, "eos_token_id": end}, tokenizer(task))
