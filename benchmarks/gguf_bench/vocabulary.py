"""A byte-level vocabulary whose text can be read back token by token.

llama-diffusion-cli takes and prints text only, so a comparison of ids needs tokens that no
neighbour merges with: a capital and up to three small letters, joined from left to right.
"""

import json
import re
import string
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from itertools import product
from pathlib import Path
from typing import Self

from tokenizers.pre_tokenizers import ByteLevel

END, MASK = "<|end|>", "<|mask|>"
#: What is said is the prompt: the program formats every prompt as a chat.
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
_WORD = re.compile(r"[A-Z][a-z]*")


def words() -> Iterator[str]:
    """Short ones first, so that the beginning of each comes before it."""
    for small in (1, 2, 3):
        for letters in product(string.ascii_uppercase, *[string.ascii_lowercase] * small):
            yield "".join(letters)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tokens by id: 256 bytes, words, the end of text, the mask."""

    tokens: tuple[str, ...]

    @classmethod
    def of(cls, size: int) -> Self:
        """One of `size` tokens."""
        return cls((*sorted(ByteLevel.alphabet()), *islice(words(), size - 258), END, MASK))

    @property
    def words(self) -> range:
        """Ids that stand for themselves whatever is beside them."""
        return range(256, len(self.tokens) - 2)

    @property
    def end_id(self) -> int:
        """The end of text."""
        return len(self.tokens) - 2

    @property
    def mask_id(self) -> int:
        """An open position."""
        return len(self.tokens) - 1

    def text(self, ids: Sequence[int]) -> str:
        """What these words are written as."""
        return "".join(self.tokens[token] for token in ids)

    def ids(self, text: str) -> list[int]:
        """The words of a text.

        :raises ValueError: if anything else is in it.
        """
        known = {word: number for number, word in enumerate(self.tokens)}
        found = _WORD.findall(text)
        if "".join(found) != text or any(word not in known for word in found):
            raise ValueError(f"the text {text[:80]!r} is not made of this vocabulary's words")
        return [known[word] for word in found]

    def write(self, folder: Path) -> None:
        """The files of a tokenizer in Hugging Face's format."""
        specials = [(self.end_id, END), (self.mask_id, MASK)]
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": number, "content": text, **flags} for number, text in specials],
            "normalizer": None,
            "pre_tokenizer": level,
            "post_processor": None,
            "decoder": level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: number for number, token in enumerate(self.tokens[:-2])},
                "merges": [[self.tokens[word][:-1], self.tokens[word][-1]] for word in self.words],
            },
        }
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "mask_token": MASK,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        }
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
