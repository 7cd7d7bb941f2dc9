"""Which of several modes that give the same text is fastest: measured while answering, with bounded regret.

No randomness: with the same history the choice is the same, so that it can be explained before it is made.
"""

from collections.abc import Sequence

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

#: Of what was measured of a mode before, so much counts when an answer is added: about the last twenty matter.
_KEPT = 0.95
#: Slower modes are measured again while what that has cost is a smaller part of the time than this.
MOST_REGRET = 0.01
#: Every mode is tried so often before any is left out: on a busy machine a single answer may mislead.
TRIALS = 3
#: And no more often than one answer in so many.
_PAUSE = 16


class _Figures(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Arm(_Figures):
    """What was measured of a mode; older answers fade.

    :param tried: how often it was chosen, whatever came of it.
    """

    tokens: float = Field(default=0.0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    answers: int = Field(default=0, ge=0)
    tried: int = Field(default=0, ge=0)

    @property
    def rate(self) -> float | None:
        """Tokens a second; None if it was not measured."""
        return self.tokens / self.seconds if self.tokens > 0 and self.seconds > 0 else None


class Situation(_Figures):
    """One kind of request at one load, and its modes.

    :param asked: choices made.
    :param seconds: of all answers that were measured, none of which fade.
    :param regret: how many of them the fastest mode would have saved, by what is known of it when an answer ends.
    """

    asked: int = Field(default=0, ge=0)
    answers: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    regret: float = Field(default=0.0, ge=0)
    arms: dict[str, Arm] = {}

    def choose(self, modes: Sequence[str]) -> tuple[str, str]:
        """The mode of the next answer, and why.

        :param modes: at least one, the default first.
        """
        if len(modes) == 1:
            return modes[0], "no other mode gives the same text"
        arms = {mode: self.arms.get(mode, Arm()) for mode in modes}
        new = min(modes, key=lambda mode: arms[mode].tried)
        if arms[new].tried < TRIALS:
            return new, f"measured here {arms[new].tried} times so far, of {TRIALS} to begin with"
        rates = {mode: arm.rate for mode, arm in arms.items() if arm.rate is not None}
        if not rates:
            return modes[0], "nothing measured here yet"
        best = max(rates, key=lambda mode: rates[mode] or 0.0)
        for mode in sorted((mode for mode in modes if mode != best), key=lambda mode: arms[mode].tried):
            if arms[mode].tried * _PAUSE <= self.asked and self._pays(arms[mode], rates[best] or 0.0):
                return mode, "measured again, lest it has become faster"
        told = ", ".join(f"{mode} {rate:.3g}" for mode, rate in rates.items())
        return best, f"the fastest here so far, in tokens a second: {told}"

    def _pays(self, arm: Arm, best: float) -> bool:
        """Whether one more answer of a slower mode keeps the regret small."""
        if arm.rate is None:
            return True
        usual = self.seconds / max(1, self.answers)
        return self.regret + usual * (best / arm.rate - 1) <= MOST_REGRET * self.seconds

    def tried(self, mode: str) -> None:
        """A choice was made."""
        self.asked += 1
        self.arms.setdefault(mode, Arm()).tried += 1

    def learn(self, mode: str, tokens: int, seconds: float) -> None:
        """An answer has ended.

        :param tokens: of it, above 0.
        :param seconds: they took, above 0.
        """
        arm = self.arms.setdefault(mode, Arm())
        arm.tokens, arm.seconds = _KEPT * arm.tokens + tokens, _KEPT * arm.seconds + seconds
        arm.answers += 1
        self.answers += 1
        self.seconds += seconds
        best = max(other.rate or 0.0 for other in self.arms.values())
        if arm.rate is not None and arm.rate < best:
            self.regret += max(0.0, seconds - tokens / best)
