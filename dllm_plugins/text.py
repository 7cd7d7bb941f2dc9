"""From tokens to text: incremental decoding and stop strings."""

from bisect import bisect_left
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

_REPLACEMENT = "\ufffd"
#: Tokens decoded once more in front of new ones, and the fewest that are settled at once.
NEAR = 8


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


class _Running:
    """The text of a growing list of tokens, of which only the end is decoded anew.

    The text of the first `_settled` tokens is kept. What follows is decoded together with a
    few tokens before it, since a tokenizer may join, strip or split where two tokens meet. A
    place is settled once the text up to it begins the text that goes beyond it: half a
    character, or a space that the next token takes away, does not.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._settled = 0
        self._text = ""
        self._context = 0
        self._before = ""

    def text_of(self, tokens: Sequence[int], count: int) -> str:
        """The text of the first `count` tokens; `tokens` must begin as they did before."""
        if count >= self._settled:
            window = self._decode(tokens[self._context : count])
            if window.startswith(self._before):
                return self._text + window[len(self._before) :]
        return self._decode(tokens[:count])

    def settle(self, tokens: Sequence[int], most: int) -> None:
        """Keep the text of the first tokens, `most` at most, if there are enough new ones behind."""
        place = min(most, len(tokens) - NEAR)
        if place - self._settled < NEAR:
            return
        text, context = self.text_of(tokens, place), place - NEAR
        before = self._decode(tokens[context:place])
        beyond = self._decode(tokens[context:])
        # Without a visible character in front, a tokenizer may take what follows for the text's beginning.
        if before.strip() and text.endswith(before) and beyond.startswith(before):
            self._settled, self._text, self._context, self._before = place, text, context, before


class AnswerText:
    """The text of one answer as its tokens arrive.

    Holds back half a character and whatever could still become a stop string, so that
    what was handed out is never taken back.
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._running = _Running(self._decode)
        self._sent = 0
        self._within = 0
        self._decoded: tuple[int, str] = (0, "")
        self.stopped = False
        self.text = ""

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True)

    def _text_of(self, tokens: Sequence[int]) -> str:
        if self._decoded[0] != len(tokens):
            self._decoded = (len(tokens), self._running.text_of(tokens, len(tokens)))
        return self._decoded[1]

    def _cut(self, text: str) -> int:
        # What was handed out holds no stop string.
        begin = max(0, self._sent - max(map(len, self._stops), default=0))
        places = [place for place in (text.find(stop, begin) for stop in self._stops) if place >= 0]
        return min(places, default=-1)

    def push(self, tokens: Sequence[int], last: bool) -> str:
        """New text given all tokens of the answer so far; sets `stopped` at a stop string.

        :param tokens: those of the call before, and perhaps more.
        """
        text = self._decode(tokens) if last else self._text_of(tokens)
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
            self._within = len(tokens)
        else:
            sizes = range(self._within + 1, len(tokens) + 1)
            length = len(self.text)
            self._within += bisect_right(sizes, length, key=lambda n: len(self._running.text_of(tokens, n)))
        self._running.settle(tokens, self._within)
        return self._within

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
