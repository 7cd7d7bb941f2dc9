"""The text of a growing list of tokens, decoded a little at a time."""

from collections.abc import Callable
from collections.abc import Sequence

#: Tokens decoded once more in front of new ones, and the fewest that are committed at once.
NEAR = 8
#: Neighbouring places to try: a character takes four tokens at most.
_SHIFTS = range(4)


class RunningText:
    """The text of a growing list of tokens, of which only the end is decoded anew.

    The text of the first `_kept` tokens stands. What follows is decoded together with a
    few tokens before it, since a tokenizer may join, strip or split where two tokens meet. A
    place is kept once the text up to it begins the text that goes beyond it: half a
    character, or a space that the next token takes away, does not.

    :param joined: ids of tokens that a decoder reads all together wherever they stand in a row.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], joined: frozenset[int] = frozenset()) -> None:
        self._decode = decode
        self._joined = joined
        self._kept = 0
        self._text = ""
        self._context = 0
        self._before = ""

    def text_of(self, tokens: Sequence[int], count: int) -> str:
        """The text of the first `count` tokens; `tokens` must begin as they did before."""
        if count >= self._kept:
            window = self._decode(tokens[self._context : count])
            if window.startswith(self._before):
                return self._text + window[len(self._before) :]
        return self._decode(tokens[:count])

    def commit(self, tokens: Sequence[int], most: int) -> None:
        """Keep the text of the first tokens, `most` at most, if there are enough new ones behind."""
        last = min(most, len(tokens) - NEAR)
        if last - self._kept < 2 * NEAR:
            return
        for place in (last - shift for shift in _SHIFTS):
            if tokens[place - 1] not in self._joined and any(
                self._commit_at(tokens, place, place - NEAR - shift) for shift in _SHIFTS
            ):
                return

    def _commit_at(self, tokens: Sequence[int], place: int, context: int) -> bool:
        text, before = self.text_of(tokens, place), self._decode(tokens[context:place])
        beyond = self._decode(tokens[context : place + 2 * NEAR])
        if not text.endswith(before) or not beyond.startswith(before):
            return False
        # Without a visible character in front, a tokenizer may take what follows for the text's beginning.
        if not before.strip() and (not before or self.text_of(tokens, context) + before != text):
            return False
        self._kept, self._text, self._context, self._before = place, text, context, before
        return True
