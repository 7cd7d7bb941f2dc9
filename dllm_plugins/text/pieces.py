"""The bytes that each token of a tokenizer stands for, and what is taken away at the beginning of a text.

Tokenizers say what a list of tokens spells; half a character of it they do not tell. So their decoders are read:
byte-level ones (one letter a byte) and SentencePiece's (spaces as a letter of their own, single bytes as `<0xE2>`).
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dllm_plugins.errors import OptionError

_SENTENCEPIECE = frozenset({"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"})
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Pieces:
    """What tokens spell.

    :param texts: the bytes of each id; None for special tokens, which have no text.
    :param strips: whether a space at the beginning of a text is taken away.
    """

    texts: tuple[bytes | None, ...]
    strips: bool


class Reader:
    """How a tokenizer's decoder reads tokens as bytes.

    :param kinds: the steps of the decoder, for people.
    :param strips: whether a space at the beginning of a text is taken away.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = None if backend is None else backend.decoder
        steps = [] if decoder is None else _steps(json.loads(decoder.__getstate__()))
        self.kinds = [step["type"] for step in steps]
        self._space = _space(steps)
        self._byte_level = self.kinds == ["ByteLevel"]
        self.strips = not self._byte_level and _strips(steps)

    @property
    def knows(self) -> bool:
        """Whether a token has the same bytes wherever it stands."""
        return self._byte_level or (self._space is not None and _SENTENCEPIECE.issuperset(self.kinds))

    def read(self, token: str) -> bytes:
        """The bytes of a token."""
        return _bytes(token) if self._byte_level else _unspaced(token, self._space or "")


def pieces_of(tokenizer: Any, size: int, shown: frozenset[int] = frozenset()) -> Pieces:
    """What each of the ids 0 to `size` - 1 spells.

    :param tokenizer: of transformers, or :class:`~dllm_plugins.text.tokenizer.LightTokenizer`.
    :param shown: special tokens that have a text all the same.
    :raises OptionError: for a tokenizer whose tokens spell different texts in different places.
    """
    reader = Reader(tokenizer)
    if not reader.knows:
        raise OptionError(
            f"a constraint needs to know the bytes of each token, which a tokenizer with the decoder "
            f"{'+'.join(reader.kinds) or 'None'} ({type(tokenizer).__name__}) does not tell; use a model whose "
            f"tokenizer is byte-level or SentencePiece, or leave the constraint out"
        )
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special} - shown
    texts: list[bytes | None] = []
    for number in range(size):
        # Decoders treat added tokens as all others, in the form that the normalizer has given them.
        token = None if number in special else tokenizer.backend_tokenizer.id_to_token(number)
        texts.append(None if token is None else reader.read(token))
    return Pieces(tuple(texts), reader.strips)


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    return [step for part in parts for step in ([part] if part["type"] != "Sequence" else _steps(part))]


def _space(steps: list[dict[str, Any]]) -> str | None:
    """The letter that stands for a space; None if another decoder is at work."""
    for step in steps:
        if step["type"] == "Metaspace":
            return str(step["replacement"])
        if step["type"] == "Replace" and step["content"] == " " and "String" in step["pattern"]:
            return str(step["pattern"]["String"])
    return None


def _strips(steps: list[dict[str, Any]]) -> bool:
    for step in steps:
        if step["type"] == "Strip" and step["content"] == " " and step["start"]:
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False


def _unspaced(token: str, space: str) -> bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace(space, " ").encode()


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    """The bytes that the letters of byte-level vocabularies stand for (GPT-2's `bytes_to_unicode`)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    found = {chr(byte): byte for byte in own}
    others = [byte for byte in range(256) if byte not in own]
    return found | {chr(256 + number): byte for number, byte in enumerate(others)}


def _bytes(token: str) -> bytes:
    letters = _letters()
    # Added tokens may hold other letters; the decoder then leaves them as they are.
    return bytes(letters[letter] for letter in token) if letters.keys() >= set(token) else token.encode()
