"""Log-probabilities in the shape that OpenAI's interface gave them, which LangChain and llm hand out."""

from abc import ABC
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import TokenLogprob
from dllm_plugins.text.pieces import Reader


class Spelling(ABC):
    """A tokenizer that is in another process, and knows here the bytes of tokens that were told of."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """See :func:`token_bytes`."""


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
    if isinstance(tokenizer, Spelling):
        return tokenizer.token_bytes(token)
    reader = Reader(tokenizer)
    if reader.knows and token not in tokenizer.added_tokens_decoder:
        piece = tokenizer.backend_tokenizer.id_to_token(token)
        if piece is not None:
            return reader.read(piece)
    text: str = tokenizer.decode([token], skip_special_tokens=False)
    return text.encode()
