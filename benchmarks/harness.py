"""What every benchmark shares: contestants timed in turns, medians, rows, a table, JSON."""

import json
import platform
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track


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
        return 1000 * sum(self.seconds) / self.tokens


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


def measure(contestants: Mapping[str, Decode], prompts: Sequence[str], rounds: int) -> dict[str, Result]:
    """Every contestant answers every prompt `rounds` times, in turns, so that all share the machine's moods."""
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in prompts] for name in contestants}
    answers: dict[str, list[Answer]] = {name: [] for name in contestants}
    names = list(contestants)
    for name in names:
        contestants[name](prompts[0])
    turns = [(turn, place) for turn in range(rounds) for place in range(len(prompts))]
    for turn, place in track(turns, "measuring", console=Console(stderr=True)):
        shift = (turn + place) % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.perf_counter()
            answer = contestants[name](prompts[place])
            seconds[name][place].append(time.perf_counter() - began)
            if turn == 0:
                answers[name].append(answer)
    return {
        name: Result(tuple(answers[name]), tuple(statistics.median(times) for times in seconds[name])) for name in names
    }


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
        tokens_per_forward=round(ours.tokens / passes, 3),
        rows_per_token=round(sum(answer.rows for answer in ours.answers) / ours.tokens, 2),
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


def report(rows: Sequence[Row], path: Path | None) -> None:
    """Print a Markdown table and write the rows as JSON."""
    print(machine(), "", table(rows), sep="\n")
    if path is not None:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
