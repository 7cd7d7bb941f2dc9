"""What each token adds to a text, where tokens may hold half a character or take a space away."""

from collections.abc import Sequence

from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.answer import decoded

_REPLACEMENT = "\ufffd"


class TokenTexts:
    """The part of a text that each of its tokens brings.

    A character that several tokens share belongs to the last of them; special tokens go by their names.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[tuple[int, ...], str] = {}
        self._names: dict[int, str] = {}

    def name_of(self, token: int) -> str | None:
        """What a token is called that is no text, such as end-of-text; None for text."""
        if token not in self._names:
            named = not self._text((token,)) and self._tokenizer.decode([token], skip_special_tokens=False)
            self._names[token] = named or ""
        return self._names[token] or None

    def of(self, tokens: Sequence[int], before: int | None = None) -> list[str]:
        """As many texts as tokens; joined they are what the tokens read together.

        :param before: the token in front of them, if there is one.
        """
        window: tuple[int, ...] = () if before is None else (before,)
        read, found = self._text(window), list[str]()
        for place, token in enumerate(tokens):
            window = (*window, token)
            text, last = self._text(window), place == len(tokens) - 1
            half = text.endswith(_REPLACEMENT) and not last
            found.append("" if half else text[len(read) :])
            if not half:
                # Only a token that is whole by itself can stand for all that was read before it.
                alone = self._text((token,))
                window, read = ((token,), alone) if _REPLACEMENT not in alone else (window, text)
        return found

    def _text(self, tokens: tuple[int, ...]) -> str:
        if tokens not in self._texts:
            self._texts[tokens] = decoded(self._tokenizer, tokens) if tokens else ""
        return self._texts[tokens]
