"""Which of several modes that give the same text is fastest: measured while answering, with bounded regret.

No randomness: with the same history the choice is the same, so that it can be explained before it is made. A situation
that is new begins with what is known of the wider ones it belongs to, and leaves them as its own measures come in.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

#: Of what was measured of a mode before, so much counts when a piece is added: about the last twenty matter.
_KEPT = 0.95
#: Slower modes are measured again while what that has cost is a smaller part of the time than this.
MOST_REGRET = 0.01
#: Every mode is tried so often in the widest situation before any is left out, and in every other as long as it seems
#: less than a quarter slower than the fastest: on a busy machine one piece may mislead.
TRIALS = 3
_CLOSE = 1.25
#: And no more often than one piece in so many.
_PAUSE = 16
#: What wider situations say counts for as many tokens; more would hold on to their fastest mode where it is another.
_BEFORE = 4
#: Modes that wider situations call slower than this, by the fastest, are not tried in every narrow one.
_HOPELESS = 2.5


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Arm(_Figures):
    """What was measured of a mode; older pieces of answers fade.

    :param pieces: of answers, or whole ones, that were measured.
    :param tried: how often it was chosen, where it was measured or may be yet.
    """

    tokens: float = Field(default=0.0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    pieces: int = Field(default=0, ge=0)
    tried: int = Field(default=0, ge=0)

    def learn(self, tokens: int, seconds: float) -> None:
        """One more piece."""
        self.tokens, self.seconds = _KEPT * self.tokens + tokens, _KEPT * self.seconds + seconds
        self.pieces += 1

    @property
    def rate(self) -> float | None:
        """Tokens a second; None if it was not measured."""
        return self.tokens / self.seconds if self.tokens > 0 and self.seconds > 0 else None


class Pool(_Figures):
    """What was measured in a wider situation."""

    arms: dict[str, Arm] = {}

    def arm(self, mode: str) -> Arm:
        """That of a mode; empty if it is new."""
        return self.arms.setdefault(mode, Arm())

    def tried(self, mode: str) -> None:
        """A choice was made."""
        self.arm(mode).tried += 1

    def untried(self, mode: str) -> None:
        """A choice came to nothing that could be measured."""
        self.arm(mode).tried = max(0, self.arm(mode).tried - 1)

    def learn(self, mode: str, tokens: int, seconds: float) -> None:
        """A piece has ended.

        :param tokens: of it, above 0.
        :param seconds: they took, above 0.
        """
        self.arm(mode).learn(tokens, seconds)

    def known(self, mode: str) -> Arm:
        """The same, without a trace."""
        return self.arms.get(mode, Arm())

    def paces(self, wider: Mapping[str, float]) -> dict[str, float]:
        """Seconds a token takes in each mode.

        :param wider: the same in a wider situation. It tells how modes compare; how fast this one is, is seen here.
        """
        own = {mode: arm for mode, arm in self.arms.items() if arm.rate is not None}
        both = [mode for mode in own if mode in wider]
        expected = sum(wider[mode] * own[mode].tokens for mode in both)
        slower = sum(own[mode].seconds for mode in both) / expected if expected else 1.0
        found = {mode: pace * slower for mode, pace in wider.items()}
        for mode, arm in own.items():
            weight = _BEFORE if mode in found else 0
            found[mode] = (arm.seconds + weight * found.get(mode, 0.0)) / (arm.tokens + weight)
        return found


class Situation(Pool):
    """One kind of request at one load, and its modes.

    :param asked: choices made.
    :param seconds: of all pieces that were measured, none of which fade.
    :param regret: how many of them the fastest mode would have saved, by what is known of it when a piece ends.
    """

    asked: int = Field(default=0, ge=0)
    pieces: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    regret: float = Field(default=0.0, ge=0)

    def choose(self, modes: Sequence[str], wider: Sequence[Pool] = ()) -> tuple[str, str]:
        """The mode of the next piece, and why.

        :param modes: at least one, the default first.
        :param wider: situations that this one belongs to, the widest first.
        """
        if len(modes) == 1:
            return modes[0], "no other mode gives the same text"
        widest = wider[0] if wider else self
        new = min(modes, key=lambda mode: widest.known(mode).tried)
        if widest.known(new).tried < TRIALS:
            return new, f"measured {widest.known(new).tried} times so far, of {TRIALS} to begin with"
        paces = self._paces(modes, wider)
        if not paces:
            return modes[0], "nothing measured here yet"
        told = ", ".join(f"{mode} {1 / pace:.3g}" for mode, pace in paces.items())
        best, *slower = sorted(paces, key=lambda mode: paces[mode])
        slower += [mode for mode in modes if mode not in paces]
        found = self._trial(best, slower, paces, told) if wider else None
        if found is not None:
            return found
        for mode in sorted(slower, key=lambda mode: self.known(mode).tried):
            if self.known(mode).tried * _PAUSE <= self.asked and self._pays(paces.get(mode), paces[best]):
                return mode, "measured again, lest it has become faster"
        return best, f"the fastest here so far, in tokens a second: {told}"

    def _trial(self, best: str, slower: Sequence[str], paces: Mapping[str, float], told: str) -> tuple[str, str] | None:
        """A mode to try where only wider situations are known, or too little of this one, and why."""
        for mode in (best, *slower):
            if mode in paces and not self.known(mode).tried and paces[mode] < _HOPELESS * paces[best]:
                return mode, f"not measured on requests like this; in tokens a second others let expect: {told}"
        for mode in slower:
            if mode in paces and self.known(mode).tried < TRIALS and paces[mode] < _CLOSE * paces[best]:
                return mode, f"about as fast as {best} so far; in tokens a second: {told}"
        return None

    def _paces(self, modes: Sequence[str], wider: Sequence[Pool]) -> dict[str, float]:
        found: dict[str, float] = {}
        for pool in (*wider, self):
            found = pool.paces(found)
        return {mode: found[mode] for mode in modes if mode in found}

    def _pays(self, pace: float | None, best: float) -> bool:
        """Whether one more piece of a slower mode keeps the regret small."""
        if pace is None:
            return True
        usual = self.seconds / max(1, self.pieces)
        return self.regret + usual * (pace / best - 1) <= MOST_REGRET * self.seconds

    def tried(self, mode: str) -> None:
        """See :meth:`Pool.tried`."""
        super().tried(mode)
        self.asked += 1

    def learn(self, mode: str, tokens: int, seconds: float) -> None:
        """See :meth:`Pool.learn`."""
        super().learn(mode, tokens, seconds)
        arm = self.arm(mode)
        self.pieces += 1
        self.seconds += seconds
        best = max(other.rate or 0.0 for other in self.arms.values())
        if arm.rate is not None and arm.rate < best:
            self.regret += max(0.0, seconds - tokens / best)
