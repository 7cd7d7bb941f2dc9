"""Texts of users as token ids, in which control tokens come from the template alone.

A chat is rendered to one text and then tokenised, and there `<|im_end|>` in a message looks like
the template's own. So what a message spells is marked before rendering; the template's tokens,
which are not marked, are then given names that nobody can type, and a copy of the tokenizer that
knows the tokens by these names only reads the rest as the ordinary text it is.
"""

import json
import re
import secrets
from collections.abc import Callable
from collections.abc import Iterable
from functools import cached_property
from typing import Any
from weakref import proxy

from tokenizers import Tokenizer

from dllm_plugins.errors import RequestError
from dllm_plugins.files.reading import raised_by_library


def _unlikely() -> str:
    """Characters for private use, which no text holds by chance."""
    return "".join(chr(0xF0000 + secrets.randbelow(0xFFFE)) for _ in range(3))


#: Inside a spelled token, so that it is none; in front of a token's private name.
_INSIDE, _BEFORE = _unlikely(), _unlikely()


def checked(text: str) -> str:
    """The text, if it consists of characters.

    :raises RequestError: naming half a surrogate pair and its place.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"the text holds {text[error.start]!r} at position {error.start}, half of a surrogate pair and no "
            f"character; remove it, or decode the text as UTF-16 first"
        ) from error
    return text


def ids_of(encode: Callable[[], Iterable[int]], what: str) -> list[int]:
    """What a tokenizer makes of a text.

    :raises RequestError: with what the tokenizer says if it fails.
    """
    try:
        return list(encode())
    except BaseException as error:
        if not raised_by_library(error):
            raise
        raise RequestError(f"the tokenizer cannot read {what} ({type(error).__name__}: {error}); change it") from error


class Speller:
    """One tokenizer's control tokens, and how to write their names as text.

    :param tokenizer: of transformers.
    :param own: ids that the model or its template uses as control, whether or not they are marked as special.
    :param hard: those of them that an assistant's message must not hold either.
    """

    def __init__(self, tokenizer: Any, own: frozenset[int], hard: frozenset[int]) -> None:
        # Spellers are kept by their tokenizers, which they must not keep alive.
        self.tokenizer = proxy(tokenizer)
        added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        special = frozenset(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._added = added
        self._names = {
            number: added.get(number) or tokenizer.convert_ids_to_tokens(number)
            for number in special | {number for number in own if number in added or number in hard}
            if 0 <= number < len(tokenizer)
        }
        self._hard = frozenset(number for number in self._names if number in special or number in hard)

    def _controls(self, role: str) -> frozenset[int]:
        # What a model itself has said in sight, such as its thoughts between marks, stays as it said it.
        return self._hard if role == "assistant" else frozenset(self._names)

    def spells(self, text: str, role: str = "user") -> bool:
        """Whether any control token would come of a text."""
        ids = ids_of(lambda: self.tokenizer.encode(checked(text), add_special_tokens=False), "the text")
        return not self._controls(role).isdisjoint(ids)

    def marked(self, value: Any, role: str = "user") -> Any:
        """A message, or a part of one, in which the names of control tokens are marked."""
        if isinstance(value, str):
            names = _any_of(self._names[number] for number in self._controls(role))
            return names.sub(lambda found: found[0][0] + _INSIDE + found[0][1:], value)
        if isinstance(value, dict):
            return {key: item if key == "role" else self.marked(item, role) for key, item in value.items()}
        return [self.marked(item, role) for item in value] if isinstance(value, list | tuple) else value

    @staticmethod
    def marks(text: str) -> int:
        """How many tokens are marked in a text."""
        return text.count(_INSIDE)

    def encode_text(self, text: str, special: bool) -> list[int]:
        """Ids of a text of which no control token comes.

        :param special: put the tokenizer's own begin and end around it.
        """
        if not self.spells(text):
            return ids_of(lambda: self.tokenizer.encode(text, add_special_tokens=special), "the text")
        return self._plain(text, special, 0)

    def encode_rendered(self, text: str) -> list[int]:
        """Ids of a chat rendered from marked messages."""
        pattern, controls = _any_of(self._added.values()), set(self._names.values())
        private = pattern.sub(lambda found: (_BEFORE if found[0] in controls else "") + found[0], text)
        return self._plain(private.replace(_INSIDE, ""), False, private.count(_BEFORE))

    def _plain(self, text: str, special: bool, controls: int) -> list[int]:
        copy = self._copy
        if copy is None:
            raise self._refusal(text)
        found = copy.encode(text, add_special_tokens=special)
        around = sum(found.special_tokens_mask)
        made = sum(number in self._names and number != self._unknown for number in found.ids)
        if made > controls + around:
            raise self._refusal(text)
        return list(found.ids)

    @property
    def _unknown(self) -> int | None:
        number: int | None = self.tokenizer.unk_token_id
        return number

    def _refusal(self, text: str) -> RequestError:
        names = _any_of(self._names.values()).search(text)
        token = names[0] if names else "a control token"
        return RequestError(
            f"the text spells {token!r}, a control token that this tokenizer cannot write as ordinary text; write it "
            f"another way, or give token ids"
        )

    @cached_property
    def _copy(self) -> Tokenizer | None:
        """The tokenizer with private names for control tokens; None if there can be none."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        found = json.loads(backend.to_str())
        names = set(self._names.values())

        def private(name: str) -> str:
            return _BEFORE + name if name in names else name

        for item in found["added_tokens"]:
            # A normaliser must not see these names: some take characters for private use away.
            item["normalized"] = item["normalized"] and item["content"] not in names
            item["content"] = private(item["content"])
        _rename(found["model"], names, private)
        copy = Tokenizer.from_str(json.dumps(found))
        copy.no_truncation()
        copy.no_padding()
        kept = all(copy.token_to_id(private(name)) == number for number, name in self._added.items())
        return copy if kept else None


def _rename(model: dict[str, Any], names: set[str], private: Callable[[str], str]) -> None:
    """Control tokens in the vocabulary itself, where words and pieces are looked up."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {private(name): number for name, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[private(name), score] for name, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = private(model["unk_token"])
    if model.get("merges"):
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if names.isdisjoint((*pair, "".join(pair)))]


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Any of these names, the longest first, as tokenizers find them."""
    longest_first = sorted(set(names) - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
