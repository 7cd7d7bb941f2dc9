"""A tokenizer of 28 texts, some of them several letters long, for models of random weights."""

import pytest
from tokenizers import Tokenizer
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

MERGES = [("a", "b"), ("b", "a"), ("ab", "c"), ('"', ":"), ('"', ","), ("{", '"'), ("a", "a")]
CONTROL = ["<eos>", "<s>", "<d>", "<m>"]


@pytest.fixture(scope="session")
def letters() -> PreTrainedTokenizerFast:
    """It; ids 28 and 31 are the end of text and the mask, as tests/modes/tiny_models.py has them."""
    texts = [*"abcdefghijklmnop", *'"{}:,', *("".join(pair) for pair in MERGES)]
    backend = Tokenizer(models.BPE({text: number for number, text in enumerate([*texts, *CONTROL])}, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(CONTROL)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", mask_token="<m>")
