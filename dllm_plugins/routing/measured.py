"""What was measured of a piece of an answer."""

from dataclasses import dataclass


@dataclass(slots=True)
class Measured:
    """What came out of the measured passes of a row, and what it has to answer for.

    :param tokens: that became final in them.
    :param rows: that took part in them, summed over the passes.
    """

    tokens: int = 0
    seconds: float = 0.0
    passes: int = 0
    rows: int = 0

    def add(self, tokens: int, seconds: float, rows: int) -> None:
        """One more pass."""
        self.tokens += tokens
        self.seconds += seconds
        self.passes += 1
        self.rows += rows
