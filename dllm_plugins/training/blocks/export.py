"""The trained model as a folder in the hub's format, of family `sdar`."""

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

from dllm_plugins.training.blocks.puzzles import CELLS
from dllm_plugins.training.blocks.puzzles import MASK_ID
from dllm_plugins.training.blocks.puzzles import VOCABULARY
from dllm_plugins.training.blocks.recipe import BlockRecipe
from dllm_plugins.training.blocks.recipe import model_config
from dllm_plugins.training.hub_folder import write_model

#: The board alone is the prompt.
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; white space is dropped, so boards may be written in lines."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Replace(Regex(r"\s"), "")
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    found = PreTrainedTokenizerFast(tokenizer_object=words, mask_token="[MASK]", unk_token="[UNK]")
    found.chat_template = CHAT_TEMPLATE
    return found


def export(model: nn.Module, recipe: BlockRecipe, folder: Path) -> None:
    """Write config, weights in bfloat16, tokenizer and generation config."""
    config: dict[str, Any] = {
        "architectures": ["SDARForCausalLM"],
        "model_type": "sdar",
        **model_config(recipe),
        "block_size": recipe.block_length,
        "mask_token_id": MASK_ID,
        "eos_token_id": None,
    }
    write_model(folder, model, config, {"max_new_tokens": CELLS, "eos_token_id": None}, tokenizer())
