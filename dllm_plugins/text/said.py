"""Log-probabilities in the shape that OpenAI's interface gave them, which LangChain and llm hand out."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dllm_plugins.events import TokenLogprob

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
#: SentencePiece's letter for a space.
_SPACE = "\u2581"


def openai_shape(said: Sequence[TokenLogprob], tokenizer: Any) -> dict[str, Any]:
    """`{"content": [...]}`, an entry a token: its text, log-probability, bytes, and the likeliest others.

    :param tokenizer: of transformers, or :class:`~dllm_plugins.text.tokenizer.LightTokenizer`.
    """
    return {
        "content": [
            {
                **_entry(tokenizer, one.token, one.logprob),
                "top_logprobs": [_entry(tokenizer, token, logprob) for token, logprob in one.top],
            }
            for one in said
        ]
    }


def _entry(tokenizer: Any, token: int, logprob: float | None) -> dict[str, Any]:
    found = token_bytes(tokenizer, token)
    return {"token": found.decode(errors="replace"), "logprob": logprob, "bytes": list(found)}


def token_bytes(tokenizer: Any, token: int) -> bytes:
    """What a token stands for in the middle of a text, half a character included; a special token's own name."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    piece = None if backend is None or token in tokenizer.added_tokens_decoder else backend.id_to_token(token)
    decoder = repr(getattr(backend, "decoder", None))
    if piece is not None and "ByteLevel" in decoder and all(letter in _letters() for letter in piece):
        return bytes(_letters()[letter] for letter in piece)
    if piece is not None and _SPACE in decoder:
        byte = _BYTE.fullmatch(piece)
        return bytes([int(byte[1], 16)]) if byte else piece.replace(_SPACE, " ").encode()
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    return text.encode()


@lru_cache(maxsize=1)
def _letters() -> dict[str, int]:
    """The bytes behind the letters of byte-level vocabularies: printable ones stand for themselves."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(others)}
