"""What every benchmark shares: contestants timed in turns, medians, rows, a table, JSON."""

import platform
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from progress import keep
from progress import show
from progress import track


@dataclass(frozen=True, slots=True)
class Answer:
    """One decoded prompt. `tokens` are useful ones; `rows` are positions forwarded, 0 if unknown."""

    text: str
    tokens: int
    passes: int
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """One contestant over all prompts: its answers and the median seconds of each."""

    answers: tuple[Answer, ...]
    seconds: tuple[float, ...]

    @property
    def tokens(self) -> int:
        """Useful tokens of all answers."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def milliseconds_per_token(self) -> float:
        """Time of all answers over their useful tokens."""
        return 1000 * sum(self.seconds) / max(1, self.tokens)


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. `ratio` is the baseline's time over ours: above 1 we are faster."""

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    tokens: int
    passes: int
    tokens_per_forward: float
    rows_per_token: float
    baseline_tokens: int
    baseline_passes: int
    same_answers: int
    answers: int


Decode = Callable[[str], Answer]


@dataclass(frozen=True, slots=True)
class Lap:
    """One answer of a race, and what has been measured up to it.

    :param turn: the round, from 0; `place` is the prompt's.
    :param results: of all contestants over the prompts that all have answered; none before the first is.
    """

    name: str
    turn: int
    place: int
    seconds: float
    answer: Answer
    results: Mapping[str, Result]

    def __str__(self) -> str:
        each = 1000 * self.seconds / max(1, self.answer.tokens)
        return (
            f"round {self.turn + 1}, prompt {self.place + 1}: {self.name} {self.answer.tokens} tokens, "
            f"{self.answer.passes} passes, {each:.1f} ms/token"
        )


def race(contestants: Mapping[str, Decode], prompts: Sequence[str], rounds: int) -> Iterator[Lap]:
    """Every contestant answers every prompt `rounds` times, in turns, so that all share the machine's moods."""
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in prompts] for name in contestants}
    answers: dict[str, list[Answer]] = {name: [] for name in contestants}
    names = list(contestants)
    for name in track(names, "warming up"):
        contestants[name](prompts[0])
    laps = [
        (turn, place, names[(turn + place + lap) % len(names)], lap == len(names) - 1)
        for turn in range(rounds)
        for place in range(len(prompts))
        for lap in range(len(names))
    ]
    results: dict[str, Result] = {}
    for turn, place, name, is_last in track(laps, "measuring"):
        began = time.perf_counter()
        answer = contestants[name](prompts[place])
        taken = time.perf_counter() - began
        seconds[name][place].append(taken)
        if turn == 0:
            answers[name].append(answer)
        if is_last:
            results = {each: result(answers[each], seconds[each]) for each in names}
        yield Lap(name, turn, place, taken, answer, results)


def result(answers: Sequence[Answer], seconds: Sequence[Sequence[float]]) -> Result:
    """Of one contestant, over the prompts that have been answered."""
    return Result(tuple(answers), tuple(statistics.median(times) for times in seconds if times))


def compared(
    contestants: Mapping[str, Decode],
    pairs: Mapping[str, tuple[str, str]],
    prompts: Sequence[str],
    rounds: int,
    path: Path | None = None,
    before: Sequence["Row"] = (),
) -> list["Row"]:
    """A race told as it goes: a line for every answer, then the rows, also of a race that ends early.

    :param pairs: by a row's name, who is compared with whom.
    :param path: where the rows are kept, whenever all have answered a prompt.
    :param before: rows of earlier races, which stay in that file.
    """
    show(machine(), "")
    keep(before, path)
    rows: list[Row] = []
    known: Mapping[str, Result] = {}
    try:
        for lap in race(contestants, prompts, rounds):
            show(str(lap))
            if lap.results and lap.results is not known:
                known = lap.results
                rows = [compare(name, known[own], known[other]) for name, (own, other) in pairs.items()]
                keep([*before, *rows], path)
    finally:
        if rows:
            show("", f"Medians over {rows[0].answers} of {len(prompts)} prompts:", "", table(rows))
    return rows


def compare(name: str, ours: Result, baseline: Result) -> Row:
    """One row of the report."""
    passes = sum(answer.passes for answer in ours.answers)
    equal = sum(a.text == b.text for a, b in zip(ours.answers, baseline.answers, strict=True))
    return Row(
        name=name,
        ours=round(ours.milliseconds_per_token, 3),
        baseline=round(baseline.milliseconds_per_token, 3),
        unit="ms/token",
        ratio=round(baseline.milliseconds_per_token / ours.milliseconds_per_token, 3),
        tokens=ours.tokens,
        passes=passes,
        tokens_per_forward=round(ours.tokens / max(1, passes), 3),
        rows_per_token=round(sum(answer.rows for answer in ours.answers) / max(1, ours.tokens), 2),
        baseline_tokens=baseline.tokens,
        baseline_passes=sum(answer.passes for answer in baseline.answers),
        same_answers=equal,
        answers=len(ours.answers),
    )


def machine() -> str:
    """The processor and the versions that matter."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = found[0] if found else name
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def table(rows: Sequence[Row]) -> str:
    """Rows in Markdown."""
    lines = [
        "| row | ours | baseline | ratio | tokens | passes | tokens/pass | rows/token | same answers |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.name} | {row.ours:.1f} {row.unit} | {row.baseline:.1f} {row.unit} | {row.ratio:.2f} | "
            f"{row.tokens} | {row.passes} | {row.tokens_per_forward:.2f} | {row.rows_per_token:.1f} | "
            f"{row.same_answers} of {row.answers} |"
        )
    return "\n".join(lines)
