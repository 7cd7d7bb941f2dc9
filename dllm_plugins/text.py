"""From tokens to text: incremental decoding and stop strings."""

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

_REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of token ids."""


def longest_held(text: str, stops: tuple[str, ...]) -> int:
    """How many characters at the end of `text` could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


class AnswerText:
    """The text of one answer as its tokens arrive.

    Holds back half a character and whatever could still become a stop string, so that
    what was handed out is never taken back.
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._sent = 0
        self.stopped = False
        self.text = ""

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def _cut(self, text: str) -> int:
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        return min(places, default=-1)

    def push(self, tokens: Sequence[int], last: bool) -> str:
        """New text given all tokens of the answer so far; sets `stopped` at a stop string."""
        text = self._decode(tokens)
        cut = self._cut(text)
        if cut >= 0:
            self.stopped, text = True, text[:cut]
        elif not last:
            text = text.rstrip(_REPLACEMENT)
            text = text[: len(text) - longest_held(text, self._stops)]
        new = text[self._sent :]
        self._sent = max(self._sent, len(text))
        self.text = text
        return new

    def tokens_used(self, tokens: Sequence[int]) -> int:
        """How many tokens it takes to write the text handed out.

        The last one may reach into a stop string.
        """
        return bisect_left(range(len(tokens)), len(self.text), key=lambda n: len(self._decode(tokens[:n])))

    def tokens_within(self, tokens: Sequence[int]) -> int:
        """How many tokens can no longer become part of a stop string."""
        if not self._stops:
            return len(tokens)
        sizes = range(1, len(tokens) + 1)
        return bisect_right(sizes, len(self.text), key=lambda n: len(self._decode(tokens[:n])))

    def draft(self, tokens: Sequence[int], tentative: Sequence[int | None], hole: str = "·") -> str:
        """Text behind what was handed out, open positions shown as `hole`."""
        final = self._decode(tokens)
        pieces = [final[self._sent :]]
        run: list[int] = []
        for token in [*tentative, None]:
            if token is not None:
                run.append(token)
                continue
            pieces.append(self._decode([*tokens[-1:], *run])[len(self._decode(tokens[-1:])) :] if run else "")
            pieces.append(hole)
            run = []
        return "".join(pieces[:-1])
