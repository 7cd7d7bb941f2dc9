"""Drafts copied from the text so far: what followed the same tokens before (prompt look-up, n-gram drafts)."""

from collections.abc import Iterator
from collections.abc import Sequence

#: The shortest run of tokens that is looked up.
SHORTEST = 2
#: Longer runs are not told apart: a match of so many tokens says all it can.
LONGEST = 12
#: How many of the latest places of a run are compared.
_PLACES = 16


class Lookup:
    """Where each pair of tokens stands in a text that only grows."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], list[int]] = {}
        self._read = 1

    def read(self, tokens: Sequence[int]) -> None:
        """The text so far; what was read before has not changed."""
        for place in range(self._read, len(tokens)):
            self._ends.setdefault((tokens[place - 1], tokens[place]), []).append(place)
        self._read = max(self._read, len(tokens))

    def find(self, tokens: Sequence[int]) -> tuple[int, int]:
        """Where the text goes on that ends most like `tokens`, the latest such place, and how many tokens are alike.

        :param tokens: all that was read, and perhaps drafts behind it.
        :returns: a place before the end of what was read, and at least :data:`SHORTEST`; (0, 0) if there is none.
        """
        best, longest = 0, 0
        if len(tokens) < SHORTEST:
            return best, longest
        for end in reversed(self._ends.get((tokens[-2], tokens[-1]), ())[-_PLACES:]):
            if end + 1 >= self._read:
                continue
            alike = _alike(tokens, end)
            if alike > longest:
                best, longest = end + 1, alike
        return best, longest

    def follow(self, tokens: Sequence[int]) -> Iterator[tuple[int, int] | None]:
        """What may come behind `tokens`, and how many tokens alike stood before it; None where nothing is found.

        Never ends; whatever is appended to `tokens` between two questions is followed.
        """
        place, alike = self.find(tokens)
        while True:
            if not place:
                yield None
                place, alike = self.find(tokens)
                continue
            token = tokens[place]
            yield token, min(alike, LONGEST)
            if tokens[-1] == token and place + 1 < self._read:
                place, alike = place + 1, alike + 1
            else:
                place, alike = self.find(tokens)


def _alike(tokens: Sequence[int], end: int) -> int:
    """How many tokens up to place `end` equal the last ones."""
    last, count = len(tokens) - 1, SHORTEST
    while count < LONGEST and count <= end and tokens[end - count] == tokens[last - count]:
        count += 1
    return count
