"""What a format of strings is."""

from typing import NamedTuple


class Format(NamedTuple):
    """A format of strings.

    :param pattern: of the whole text, whose characters all stand for themselves in a JSON string.
    :param longest: characters of its longest text; None without a bound.
    :param shortest: of its shortest.
    """

    pattern: str
    shortest: int = 0
    longest: int | None = None
