"""What reading and writing text needs of a tokenizer, and one that is no more than that.

transformers' tokenizers fit :class:`TextTokenizer` as they are. Importing them takes longer than a first answer, so
:class:`LightTokenizer` does the same with the library behind them alone.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


class TextTokenizer(Protocol):
    """A tokenizer that chats and texts are read with, under transformers' names."""

    @property
    def added_tokens_decoder(self) -> Mapping[int, "AddedToken"]:
        """Tokens that are found before a text is cut into words, by id."""

    @property
    def special_tokens_map(self) -> Mapping[str, Any]:
        """The special tokens as chat templates name them, such as `bos_token`."""

    @property
    def unk_token_id(self) -> int | None:
        """What stands for whatever has no token."""

    def __len__(self) -> int:
        """Ids there are."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """Ids of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Text of ids."""

    def convert_ids_to_tokens(self, ids: int) -> str | list[str]:
        """The token of an id, as the vocabulary spells it."""

    def get_chat_template(self) -> str:
        """The template of chats, in jinja's language."""


class LightTokenizer:
    """A tokenizer of the library `tokenizers` with its special tokens, which behaves as transformers' fast ones do.

    Whatever else those can, such as being called or padding a batch, is done by one of them, which is made when
    it is first asked for and knows nothing of what is changed here afterwards.

    :param backend: reads and writes.
    :param special: special tokens by transformers' names, such as `eos_token`; all of them are in `backend`.
    :param chat_template: in jinja's language; None if it has none.
    """

    #: transformers' option that takes spaces away; no tokenizer of this kind does that.
    clean_up_tokenization_spaces = False

    def __init__(self, backend: "Tokenizer", special: Mapping[str, str], chat_template: str | None) -> None:
        self.backend_tokenizer = backend
        self.special_tokens_map = dict(special)
        self.chat_template = chat_template

    @property
    def added_tokens_decoder(self) -> "dict[int, AddedToken]":
        """See :class:`TextTokenizer`."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    @property
    def all_special_ids(self) -> list[int]:
        """Ids of the special tokens that have a name."""
        found = map(self.backend_tokenizer.token_to_id, dict.fromkeys(self.special_tokens_map.values()))
        return [number for number in found if number is not None]

    @property
    def unk_token_id(self) -> int | None:
        """See :class:`TextTokenizer`."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map.get("unk_token", ""))

    @property
    def mask_token_id(self) -> int | None:
        """What stands for an open position, if the tokenizer itself has that."""
        return self.backend_tokenizer.token_to_id(self.special_tokens_map.get("mask_token", ""))

    def __len__(self) -> int:
        """See :class:`TextTokenizer`."""
        return self.backend_tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, add_special_tokens: bool = True, **others: Any) -> Any:
        """See :class:`TextTokenizer`.

        :param others: options that only transformers has.
        """
        if others:
            return self.in_transformers.encode(text, add_special_tokens=add_special_tokens, **others)
        return self.backend_tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **others: Any) -> Any:
        """See :class:`TextTokenizer`; one id is a text, too.

        :param others: options that only transformers has.
        """
        if others:
            return self.in_transformers.decode(token_ids, skip_special_tokens=skip_special_tokens, **others)
        ids = [token_ids] if isinstance(token_ids, int) else [int(number) for number in token_ids]
        return self.backend_tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """See :class:`TextTokenizer`; a list of ids has a list of tokens."""
        if isinstance(ids, int):
            return self.backend_tokenizer.id_to_token(ids)
        return [self.backend_tokenizer.id_to_token(int(number)) for number in ids]

    def get_chat_template(self) -> str:
        """See :class:`TextTokenizer`.

        :raises ValueError: if it has none.
        """
        if self.chat_template is None:
            raise ValueError("the tokenizer has no chat template")
        return self.chat_template

    @cached_property
    def in_transformers(self) -> "PreTrainedTokenizerFast":
        """The same tokenizer as an object of transformers, with a copy of the vocabulary."""
        from transformers import PreTrainedTokenizerFast

        found = PreTrainedTokenizerFast(tokenizer_object=self.backend_tokenizer, **self.special_tokens_map)
        found.chat_template = self.chat_template
        return found

    def __call__(self, *texts: Any, **options: Any) -> Any:
        """As transformers' tokenizers are called."""
        return self.in_transformers(*texts, **options)

    def __getattr__(self, name: str) -> Any:
        """What only transformers' tokenizers have.

        :raises AttributeError: if they have no such thing either.
        """
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.in_transformers, name)
