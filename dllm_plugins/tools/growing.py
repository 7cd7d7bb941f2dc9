"""An object of JSON that grows, letter by letter."""

_CLOSING = {"{": "}", "[": "]"}


class GrowingObject:
    """Follows a text that begins with an object.

    :param done: whether the object is complete.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self._quoted = self._escaped = False
        self.text = ""
        self.done = False

    def take(self, text: str) -> str:
        """What of more text belongs to the object."""
        for count, letter in enumerate(text):
            if self.done:
                text = text[:count]
                break
            self._step(letter)
        self.text += text
        return text

    def _step(self, letter: str) -> None:
        if self._quoted:
            self._quoted = letter != '"' or self._escaped
            self._escaped = letter == "\\" and not self._escaped
        elif letter == '"':
            self._quoted = True
        elif letter in _CLOSING:
            self._open.append(_CLOSING[letter])
        elif self._open and letter == self._open[-1]:
            self._open.pop()
            self.done = not self._open

    def breaking(self) -> str:
        """A text behind which nobody takes it for an object: readers of JSON that is cut complete what can be."""
        quotes = '""' if self._escaped else '"' if self._quoted else ""
        return quotes + ("}" if self._open[-1:] == ["]"] else "]")
