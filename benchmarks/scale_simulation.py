"""Many replicas under load, event by event: what conversations wait for, by how requests are routed and batched.

Time is that of the simulation, in seconds. Passes cost what was measured (:class:`Costs`); between two events that
change what a replica's passes hold, all of them cost the same and are taken in one step.
"""

import math
import random
from collections import OrderedDict
from collections.abc import Generator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import simpy

Process = Generator[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Costs:
    """What a pass costs, in seconds: `base`, and more for each row that is decoded, for each position that a row sees,
    and for each token of a prompt.

    :param yields: tokens that a row gets of a pass.
    """

    base: float
    row: float
    position: float
    prompt: float
    yields: float


@dataclass(frozen=True, slots=True)
class Setting:
    """One simulation.

    :param load: requests a second for each replica, on average.
    :param limit: rows that a replica decodes at once.
    :param kept: positions of finished conversations that a replica keeps.
    :param policy: one of :data:`POLICIES`.
    :param stale: seconds that what the router knows of queues is old at most.
    :param warm: seconds before anything counts: conversations are under way by then, and caches filled.
    """

    replicas: int
    load: float
    policy: str
    limit: int = 16
    kept: int = 8192
    stale: float = 0.5
    seconds: float = 120.0
    warm: float = 120.0
    seed: int = 0


#: Tokens of a prompt that a pass takes at most.
SLICE = 256
#: Tokens that all conversations begin with.
SYSTEM = 200
#: Turns of a conversation, tokens of a question and of an answer (medians), and seconds between turns (median).
TURNS, QUESTION, ANSWER, THINKING = 4.0, 40, 100, 8.0
#: Bursts: so many times the quiet rate, for seconds on average, with quiet seconds between.
BURST, LOUD, QUIET = 3.0, 10.0, 40.0
#: Rows waiting by which a conversation's own replica may be behind the shortest of two others before it is left.
PATIENCE = 8


@dataclass(slots=True)
class Row:
    """A request at a replica.

    :param prompt: tokens that are still to be read.
    :param left: tokens of the answer that are still to come.
    """

    conversation: int
    context: int
    prompt: float
    left: float
    arrived: float
    done: simpy.Event
    first: float | None = None


@dataclass(slots=True)
class Figures:
    """What is found out. Waiting is until the first token."""

    waiting: list[float] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)
    prompts: int = 0
    cached: int = 0
    tokens: int = 0
    busy: float = 0.0

    def clear(self) -> None:
        """Begin anew."""
        self.waiting.clear()
        self.pace.clear()
        self.prompts = self.cached = self.tokens = 0
        self.busy = 0.0


class Replica:
    """Decodes up to `limit` rows together, and keeps what it can of conversations."""

    def __init__(self, clock: simpy.Environment, costs: Costs, setting: Setting, figures: Figures) -> None:
        self._clock = clock
        self._costs = costs
        self._setting = setting
        self._figures = figures
        self._rows: list[Row] = []
        self._waiting: list[Row] = []
        self._kept: OrderedDict[int, int] = OrderedDict()
        self._news = clock.event()
        clock.process(self._run())

    @property
    def queue(self) -> int:
        """Rows that it has."""
        return len(self._rows) + len(self._waiting)

    def add(self, row: Row) -> None:
        """Take a row in; what is cached of its conversation need not be read."""
        kept = min(self._kept.pop(row.conversation, SYSTEM if self._kept else 0), row.context - 1)
        row.prompt = row.context - kept
        self._figures.prompts += row.context
        self._figures.cached += kept
        self._waiting.append(row)
        if not self._news.triggered:
            self._news.succeed()

    def _run(self) -> Process:
        while True:
            while self._waiting and len(self._rows) < self._setting.limit:
                self._rows.append(self._waiting.pop(0))
            if not self._rows:
                self._news = self._clock.event()
                yield self._news
                continue
            reading = [row for row in self._rows if row.prompt > 0]
            cost = self._cost(reading)
            passes = self._passes(reading)
            self._news, begun = self._clock.event(), self._clock.now
            yield self._clock.timeout(cost * passes) | self._news
            # A row that arrives joins at the next pass.
            made = min(passes, math.ceil((self._clock.now - begun) / cost - 1e-9))
            if rest := begun + made * cost - self._clock.now:
                yield self._clock.timeout(max(0.0, rest))
            self._advance(reading, made, begun, cost)

    def _cost(self, reading: list[Row]) -> float:
        costs, writing = self._costs, [row for row in self._rows if row.prompt <= 0]
        seen = sum(row.context for row in writing)
        read = min(SLICE, sum(row.prompt for row in reading))
        return costs.base + costs.row * len(writing) + costs.position * seen + costs.prompt * read

    def _passes(self, reading: list[Row]) -> int:
        """How many passes are alike."""
        ends = [math.ceil(row.left / self._costs.yields) for row in self._rows if row.prompt <= 0]
        # The last of a prompt's slices is a smaller one.
        ends += [math.floor(reading[0].prompt / SLICE)] if reading else []
        return max(1, min(ends))

    def _advance(self, reading: list[Row], made: int, begun: float, cost: float) -> None:
        self._figures.busy += made * cost
        for row in self._rows:
            if row.prompt <= 0:
                row.left -= made * self._costs.yields
                row.context += round(made * self._costs.yields)
                if row.first is None:
                    row.first = begun + cost
                    self._figures.waiting.append(row.first - row.arrived)
        room: float = SLICE * made
        for row in reading:
            taken = min(room, row.prompt)
            row.prompt -= taken
            room -= taken
        for row in [row for row in self._rows if row.prompt <= 0 and row.left <= 0]:
            self._rows.remove(row)
            self._keep(row)
            row.done.succeed()

    def _keep(self, row: Row) -> None:
        self._kept[row.conversation] = row.context
        while sum(self._kept.values()) > self._setting.kept:
            self._kept.popitem(last=False)


class Router:
    """Chooses replicas, by what it knew of their queues a moment ago."""

    def __init__(
        self, clock: simpy.Environment, replicas: list[Replica], setting: Setting, chance: random.Random
    ) -> None:
        self._replicas = replicas
        self._setting = setting
        self._chance = chance
        self._last: dict[int, int] = {}
        self._known = [0] * len(replicas)
        clock.process(self._look(clock))

    def choose(self, conversation: int) -> Replica:
        """The replica of a request."""
        place: int = getattr(self, f"_{self._setting.policy}")(conversation)
        self._last[conversation] = place
        return self._replicas[place]

    def _look(self, clock: simpy.Environment) -> Process:
        while True:
            self._known = [replica.queue for replica in self._replicas]
            yield clock.timeout(self._setting.stale)

    def _random(self, _conversation: int) -> int:
        return self._chance.randrange(len(self._replicas))

    def _shortest(self, _conversation: int) -> int:
        least = min(self._known)
        return self._known.index(least)

    def _two(self, _conversation: int) -> int:
        one, other = self._random(0), self._random(0)
        return min(one, other, key=self._known.__getitem__)

    def _prefix(self, conversation: int) -> int:
        other, own = self._two(0), self._last.get(conversation)
        return other if own is None or self._known[own] > self._known[other] + PATIENCE else own


#: Ways to choose a replica: any; the one whose queue was shortest; the shorter of two; where the conversation was
#: before, unless that is much longer.
POLICIES = ("random", "shortest", "two", "prefix")


def simulate(costs: Costs, setting: Setting) -> Figures:
    """Run one setting; the same seed gives the same figures."""
    clock, figures, chance = simpy.Environment(), Figures(), random.Random(setting.seed)
    replicas = [Replica(clock, costs, setting, figures) for _ in range(setting.replicas)]
    router = Router(clock, replicas, setting, random.Random(setting.seed + 1))
    clock.process(_arrivals(clock, router, setting, figures, chance))
    if setting.warm:
        clock.run(until=setting.warm)
        figures.clear()
    clock.run(until=setting.warm + setting.seconds)
    return figures


def _arrivals(
    clock: simpy.Environment, router: Router, setting: Setting, figures: Figures, chance: random.Random
) -> Process:
    """Conversations begin, faster in bursts."""
    mean = setting.load * setting.replicas / TURNS
    quiet = mean * (LOUD + QUIET) / (BURST * LOUD + QUIET)
    number, loud, until = 0, False, chance.expovariate(1 / QUIET)
    while True:
        if clock.now > until:
            loud = not loud
            until = clock.now + chance.expovariate(1 / (LOUD if loud else QUIET))
        yield clock.timeout(chance.expovariate(quiet * (BURST if loud else 1)))
        clock.process(_conversation(clock, router, figures, number, random.Random(f"{setting.seed} {number}")))
        number += 1


def _conversation(
    clock: simpy.Environment, router: Router, figures: Figures, number: int, chance: random.Random
) -> Process:
    context, more = SYSTEM, True
    while more:
        answer = max(8.0, chance.lognormvariate(math.log(ANSWER), 0.7))
        context += round(max(4.0, chance.lognormvariate(math.log(QUESTION), 0.8)))
        row = Row(number, context, 0.0, answer, clock.now, clock.event())
        router.choose(number).add(row)
        yield row.done
        assert row.first is not None, "it is done"
        figures.pace.append((clock.now - row.first) / answer)
        figures.tokens += round(answer)
        context = row.context
        more = chance.random() > 1 / TURNS and context < 4096
        if more:
            yield clock.timeout(chance.lognormvariate(math.log(THINKING), 0.8))


def shown(figures: Figures, setting: Setting) -> Mapping[str, str]:
    """What the page tells of a setting."""
    waiting = sorted(figures.waiting)

    def at(share: float) -> str:
        return f"{waiting[int(share * (len(waiting) - 1))]:.2f} s"

    pace = sorted(figures.pace)
    hours = setting.replicas * setting.seconds / 3600
    return {
        "first token, median": at(0.5),
        "95 %": at(0.95),
        "99 %": at(0.99),
        "a token, median": f"{1000 * pace[len(pace) // 2]:.0f} ms",
        "cached": f"{figures.cached / max(1, figures.prompts):.0%}",
        "busy": f"{figures.busy / (setting.replicas * setting.seconds):.0%}",
        "replica hours / million tokens": f"{1e6 * hours / max(1, figures.tokens):.1f}",
    }
