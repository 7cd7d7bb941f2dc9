"""A tokenizer for tiny models."""

from collections.abc import Sequence


class Letters:
    """One character per id."""

    chat_template = None

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(chr(0x4E00 + token) for token in token_ids)
