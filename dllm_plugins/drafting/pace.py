"""How many drafts to have made where another model makes them: as many as pay, by the clock.

What a pass costs depends on both models, the machine and the company, so it is not computed but seen: stretches with
drafts and without take turns, and whichever has taken less time for a token gets the longer ones. What is drafted
never shows in the text, so neither does what the clock says.
"""

from dllm_plugins.drafting.planner import LONGEST_CHAIN

#: Rounds with drafts: at first, where they pay, and where they are only tried again.
_FIRST, _LONG, _AGAIN = 4, 32, 2
#: Passes without: to know what these take, and the least and the most where drafts do not pay.
_LOOK, _LEAST, _MOST = 2, 8, 128
#: What is left of an old round's weight after each new one.
_FADING = 0.9


class _Rate:
    """Seconds and tokens of the last rounds."""

    def __init__(self) -> None:
        self.seconds, self.tokens = 0.0, 0.0

    def add(self, seconds: float, tokens: int) -> None:
        self.seconds, self.tokens = self.seconds * _FADING + seconds, self.tokens * _FADING + tokens

    @property
    def known(self) -> bool:
        return self.tokens > 0

    @property
    def each(self) -> float:
        return self.seconds / self.tokens


class Pace:
    """Of one row.

    :param length: drafts of the first rounds; later one more than are accepted on average.
    """

    def __init__(self, length: int) -> None:
        self._accepted = float(length - 1)
        self._with, self._without = _Rate(), _Rate()
        self._drafting, self._left, self._wait = True, _FIRST, _LEAST

    @property
    def length(self) -> int:
        """How many drafts to have made now; 0 for none."""
        return min(LONGEST_CHAIN, 1 + round(self._accepted)) if self._drafting else 0

    @property
    def pays(self) -> bool:
        """Whether a token has taken less time with drafts than without, as far as both are known."""
        return not (self._with.known and self._without.known) or self._with.each < self._without.each

    def took(self, drafts: int, accepted: int, seconds: float) -> None:
        """So many drafts took so long to make and verify, and so many were accepted; one more token came."""
        if drafts:
            self._accepted = self._accepted * _FADING + accepted * (1 - _FADING)
        (self._with if drafts else self._without).add(seconds, accepted + 1)
        self._left -= 1
        if self._left <= 0:
            self._turn()

    def _turn(self) -> None:
        """The other stretch begins."""
        self._drafting = not self._drafting
        if self._drafting:
            self._left = _LONG if self.pays else _AGAIN
        elif self.pays:
            self._left, self._wait = _LOOK, _LEAST
        else:
            self._left, self._wait = self._wait, min(2 * self._wait, _MOST)
