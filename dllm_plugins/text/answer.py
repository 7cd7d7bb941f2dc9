"""From tokens to text: incremental decoding and stop strings."""

import re
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from itertools import groupby
from typing import Any
from typing import Protocol

from dllm_plugins.errors import PassError
from dllm_plugins.files.reading import raised_by_library
from dllm_plugins.text.running import RunningText

_REPLACEMENT = "\ufffd"
#: The end of a text from which transformers' `clean_up_tokenization` may yet take a space, as in "do n't".
_CLEANED = re.compile(r" [ 'nmsvret]{0,5}$")


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""


def decoded(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Their text, without special tokens.

    :raises PassError: with what the tokenizer says if it fails.
    """
    try:
        return tokenizer.decode(list(tokens), skip_special_tokens=True)
    except BaseException as error:
        if not raised_by_library(error):
            raise
        raise PassError(
            f"the tokenizer cannot write {len(tokens)} tokens of the answer as text ({type(error).__name__}: {error}); "
            f"check tokenizer.json, or download the checkpoint again"
        ) from error


def longest_held(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


def joined_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of the bytes that a SentencePiece vocabulary falls back to, and of what stands between them unseen.

    A decoder reads bytes in a row all together: one byte that fits nowhere turns the good ones
    before it into replacement characters, too.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or "ByteFallback" not in repr(backend.decoder):
        return frozenset()
    ids = (backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(found for found in ids if found is not None) | frozenset(tokenizer.all_special_ids)


class AnswerText:
    """The text of one answer as its tokens arrive.

    Holds back what the next tokens may change (half a character, a space that a tokenizer may
    take away) and whatever could still become a stop string, so that what was handed out is
    never taken back, and is the same however many tokens come at once.

    :param accepts: whether a stop string ends the answer behind a text; None if it always does.
    :param begins: where in a text, of which more comes unless it is the last, stop strings count from; None if nobody
        knows yet, and nothing can be handed out.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stops: tuple[str, ...],
        accepts: Callable[[str], bool] | None = None,
        begins: Callable[[str, bool], int | None] = lambda _text, _last: 0,
    ) -> None:
        self.tokenizer = tokenizer
        self._begins = begins
        self._stops = stops
        self._accepts = accepts
        self._joined = joined_tokens(tokenizer)
        self._cleans = bool(getattr(tokenizer, "clean_up_tokenization_spaces", False))
        self._running = RunningText(self._decode, self._joined)
        self._sent = 0
        self._used = 0
        self._decoded: tuple[int, str] = (0, "")
        self.stopped = False
        self.text = ""

    def _decode(self, tokens: Sequence[int]) -> str:
        return decoded(self.tokenizer, tokens)

    def _text_of(self, tokens: Sequence[int]) -> str:
        if self._decoded[0] != len(tokens):
            self._decoded = (len(tokens), self._running.text_of(tokens, len(tokens)))
        return self._decoded[1]

    def _steady(self, tokens: Sequence[int]) -> str:
        """The text that no further token changes."""
        count = len(tokens)
        while count and tokens[count - 1] in self._joined:
            count -= 1
        text = self._text_of(tokens) if count == len(tokens) else self._running.text_of(tokens, count)
        text = text.rstrip(_REPLACEMENT)
        open_end = _CLEANED.search(text) if self._cleans else None
        return text if open_end is None else text[: open_end.start()]

    def _cut(self, text: str, begin: int) -> int:
        # What was handed out neither holds nor begins a stop string that ends the answer.
        return min((place for stop in self._stops for place in self._found(text, stop, begin)), default=-1)

    def _found(self, text: str, stop: str, begin: int) -> Iterator[int]:
        """Where a stop string ends the answer for the first time, if it does."""
        place = text.find(stop, max(self._sent, begin))
        while place >= 0:
            if self._accepts is None or self._accepts(text[:place]):
                yield place
                return
            place = text.find(stop, place + 1)

    def push(self, tokens: Sequence[int], last: bool) -> str:
        """New text given all tokens of the answer so far; sets `stopped` at a stop string.

        :param tokens: those of the call before, and perhaps more.
        """
        text = self._decode(tokens) if last else self._steady(tokens)
        begin = self._begins(text, last)
        if begin is None:
            return ""
        sure = len(text) if last else len(text) - longest_held(text[begin:], self._stops)
        cut = self._cut(text, begin)
        # A stop string may end first and yet begin behind one that goes on; the one that begins first counts.
        self.stopped = 0 <= cut <= sure
        text = text[: cut if self.stopped else sure]
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        self.text = text
        return new

    def tokens_used(self, tokens: Sequence[int]) -> int:
        """The fewest tokens whose text begins with what was handed out.

        The last one may reach into a stop string. The number never shrinks from call to call.
        """
        while self._used < len(tokens) and not self._running.text_of(tokens, self._used).startswith(self.text):
            self._used += 1
            self._running.commit(tokens, self._used)
        return self._used

    def tokens_within(self, tokens: Sequence[int]) -> int:
        """How many tokens belong to the answer whatever comes: all, unless a stop string may cut it."""
        if self._stops:
            return self.tokens_used(tokens)
        self._running.commit(tokens, len(tokens))
        return len(tokens)

    def draft(self, tokens: Sequence[int], tentative: Sequence[int | None], hole: str = "·") -> str:
        """Text behind what was handed out, open positions shown as `hole`."""
        pieces = [self._text_of(tokens)[self._sent :]]
        before = list(tokens[-1:])
        skip = -1
        for is_open, run in groupby(tentative, key=_is_none):
            if is_open:
                pieces.append(hole * sum(1 for _ in run))
                continue
            skip = len(self._decode(before)) if skip < 0 else skip
            known = [token for token in run if token is not None]
            pieces.append(self._decode([*before, *known])[skip:])
        return "".join(pieces)


def _is_none(token: int | None) -> bool:
    return token is None
