"""Discrete flow matching (arXiv 2407.15595): a path from noise to data, and the jumps along it.

Time runs from 0 (noise) to 1 (data). At time t a position holds its clean token with
probability kappa(t), else noise, each position by itself. A token that is not clean jumps
to the clean one at the rate a k'/(1 - k), and back to noise at the rate b k'/k. Any a and b
with a - b = 1 keep that distribution; b > 0 corrects tokens that were committed too early.
The schedule a = 1 + c t^p (1 - t)^p is that of the paper's appendix D (c = 10, p = 0.25).

Over a step the rates are either frozen (`euler`), as in the paper, or integrated with a
and b held (`integrated`), as in FS-DFM (arXiv 2509.20624). With a = 1 the integrated one is
exact, and, from masks, the same as ancestral sampling (arXiv 2406.07524).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

SchedulerName = Literal["linear", "polynomial", "cosine"]
SolverName = Literal["integrated", "euler"]

#: The exponent of the paper's experiments with text.
CUBIC = 3.0
#: The power of the corrector's schedule in the paper's appendix D.
POWER = 0.25
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Scheduler:
    """How much is clean at a time: kappa rises from 0 to 1.

    :param name: linear: t; polynomial: t^exponent; cosine: 1 - cos(pi t / 2), MaskGIT's.
    """

    name: SchedulerName = "linear"
    exponent: float = CUBIC

    def kappa(self, time: Tensor) -> Tensor:
        """The share that is clean, of the shape of `time`."""
        if self.name == "linear":
            return time
        if self.name == "polynomial":
            return time**self.exponent
        return 1 - torch.cos(time * (math.pi / 2))

    def slope(self, time: Tensor) -> Tensor:
        """Its derivative."""
        if self.name == "linear":
            return torch.ones_like(time)
        if self.name == "polynomial":
            return time ** (self.exponent - 1) * self.exponent
        return torch.sin(time * (math.pi / 2)) * (math.pi / 2)

    def at(self, time: float) -> float:
        """Kappa of one time, in double precision."""
        return float(self.kappa(torch.tensor(time, dtype=torch.float64)))

    def slope_at(self, time: float) -> float:
        """Its derivative there."""
        return float(self.slope(torch.tensor(time, dtype=torch.float64)))


@dataclass(frozen=True, slots=True)
class FlowStep:
    """One step along the path.

    :param begin: its time, and `end` the next one.
    :param commit: probability that a position that holds a mask jumps to its clean token.
    :param reopen: probability that one that holds a token jumps back to the mask.
    :param jump: probability that a position jumps at all, if noise and data cannot be told apart.
    :param forward: and then to the clean token, not to noise.
    """

    begin: float
    end: float
    commit: float
    reopen: float
    jump: float
    forward: float


@dataclass(frozen=True, slots=True)
class Flow:
    """A path with its discretisation.

    :param corrector: c; 0 never goes back.
    :param power: p.
    """

    scheduler: Scheduler = Scheduler()
    corrector: float = 0.0
    power: float = POWER
    solver: SolverName = "integrated"

    def corrects(self, time: float) -> float:
        """The weight b of the way back at a time."""
        return self.corrector * math.pow(time * (1 - time), self.power)

    def rates(self, time: float) -> tuple[float, float]:
        """How often a position jumps forwards and back, per time, at a time inside (0, 1)."""
        kappa, slope, back = self.scheduler.at(time), self.scheduler.slope_at(time), self.corrects(time)
        return (1 + back) * slope / (1 - kappa), back * slope / kappa

    def largest_step(self, time: float) -> float:
        """With frozen rates no step may be longer: its jumps would have a probability above 1."""
        return 1 / sum(self.rates(time))

    def step(self, begin: float, end: float) -> FlowStep:
        """The jumps from one time to a later one.

        Two steps have rules of their own. At time 0 nothing is clean, so nothing can go back,
        and the rate of going back has no limit: the first step is the plain integrated one.
        The last one commits all that is open and takes nothing back.
        """
        if end >= 1:
            return FlowStep(begin, 1.0, commit=1.0, reopen=0.0, jump=1.0, forward=1.0)
        kappa, after = self.scheduler.at(begin), self.scheduler.at(end)
        if kappa <= 0:
            return FlowStep(begin, end, commit=after, reopen=0.0, jump=after, forward=1.0)
        if self.solver == "euler":
            ahead, back = (rate * (end - begin) for rate in self.rates(begin))
            return FlowStep(begin, end, ahead, back, ahead + back, ahead / (ahead + back))
        weight = self.corrects(begin)
        ahead, back = (1 + weight) * math.log((1 - kappa) / (1 - after)), weight * math.log(after / kappa)
        both = ahead + back
        return FlowStep(begin, end, -math.expm1(-ahead), -math.expm1(-back), -math.expm1(-both), ahead / both)

    def steps(self, count: int) -> tuple[FlowStep, ...]:
        """All steps from 0 to 1.

        With the integrated solver `count` of equal length. With Euler's a step that would be
        longer than its rates allow is cut to what they do, so there may be more; once no more
        than 1 / count is left, the last one takes it.
        """
        return _steps(self, count)


@lru_cache(maxsize=64)
def _steps(flow: Flow, count: int) -> tuple[FlowStep, ...]:
    if flow.solver == "integrated":
        return tuple(flow.step(begin / count, (begin + 1) / count) for begin in range(count))
    found, time = list[FlowStep](), 0.0
    while 1 - time > (1 + _ROUNDING) / count:
        length = 1 / count if time == 0 else min(1 / count, flow.largest_step(time))
        found.append(flow.step(time, time + length))
        time += length
    return (*found, flow.step(time, 1.0))


def chosen(luck: Sequence[float], probability: Sequence[float], *, evenly: bool = False) -> list[bool]:
    """Which of N positions jump.

    :param luck: N uniform numbers and one more.
    :param probability: of each position.
    :param evenly: systematic sampling: the positions in random order, laid end to end by their
        probabilities and marked off at distances of 1, so their number is the expected one, rounded
        up or down. Each still jumps with its probability, but they do not crowd by chance.
    """
    if not evenly:
        return [own < share for own, share in zip(luck, probability, strict=False)]
    found, reached = [False] * len(probability), luck[len(probability)]
    for index in sorted(range(len(probability)), key=luck.__getitem__):
        before, reached = reached, reached + probability[index]
        # The sum of many shares may end a rounding error before the mark it should reach.
        found[index] = math.floor(reached + _ROUNDING) > math.floor(before + _ROUNDING)
    return found
