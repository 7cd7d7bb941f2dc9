"""Contestants that decode one prompt in turns, and rows that compare two of them."""

import statistics
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass

from passes import turns
from progress import track

SAME = "same tokens"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer.

    :param passes: forwards of the model, all kinds.
    :param rows: positions that those forwards computed; 0 where unknown.
    :param seconds: from the prompt's ids to the last new one, without loading.
    """

    tokens: tuple[int, ...]
    passes: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Side:
    """One contestant: its answer, and the median of its times."""

    answer: Decoded
    seconds: float

    @property
    def ms_per_token(self) -> float:
        """Milliseconds a new token."""
        return 1000 * self.seconds / len(self.answer.tokens)

    @property
    def ms_per_pass(self) -> float:
        """Milliseconds a forward."""
        return 1000 * self.seconds / self.answer.passes

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second."""
        return len(self.answer.tokens) / self.seconds


Decode = Callable[[], Decoded]


def in_turns(contestants: Mapping[str, Decode], rounds: int) -> dict[str, Side]:
    """All of them once unmeasured, then in rounds that begin with another one each time."""
    answers = {name: contestants[name]() for name in track(list(contestants), "warming up")}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for name in turns(list(contestants), rounds):
        answers[name] = contestants[name]()
        seconds[name].append(answers[name].seconds)
    return {name: Side(answers[name], statistics.median(seconds[name])) for name in contestants}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all rows of one file share.

    :param new_tokens: asked for; all are given, as nothing ends a text here.
    :param weights: parameters of the model.
    """

    architecture: str
    size: str
    quant: str
    weights: int
    threads: int
    prompt: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. Ratios are their time over ours: above 1 we are faster.

    :param ratio: of milliseconds a token; where their passes are more than ours, of as many.
    :param ratio_as_run: of milliseconds a token, whatever passes they made.
    :param ratio_per_pass: of milliseconds a pass.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    ratio_as_run: float
    ratio_per_pass: float
    passes: int
    baseline_passes: int
    ms_per_pass: float
    baseline_ms_per_pass: float
    tokens_per_second: float
    baseline_tokens_per_second: float
    rows: int
    baseline_rows: int
    exactness: str
    architecture: str
    size: str
    quant: str
    weights: int
    threads: int
    prompt: int
    new_tokens: int
    decoding: str
    note: str


def compare(
    name: str,
    ours: Side,
    baseline: Side,
    setting: Setting,
    decoding: str,
    exactness: str,
    note: str = "",
    spare: int = 0,
) -> Row:
    """One row.

    :param decoding: the options of both sides, in words.
    :param spare: passes of the baseline that commit nothing, which `ratio` leaves out.
    """
    useful = (baseline.answer.passes - spare) / baseline.answer.passes
    as_run = baseline.ms_per_token / ours.ms_per_token
    return Row(
        name=name,
        ours=round(ours.ms_per_token, 3),
        baseline=round(baseline.ms_per_token, 3),
        unit="ms/token",
        ratio=round(as_run * useful, 3),
        ratio_as_run=round(as_run, 3),
        ratio_per_pass=round(baseline.ms_per_pass / ours.ms_per_pass, 3),
        passes=ours.answer.passes,
        baseline_passes=baseline.answer.passes,
        ms_per_pass=round(ours.ms_per_pass, 3),
        baseline_ms_per_pass=round(baseline.ms_per_pass, 3),
        tokens_per_second=round(ours.tokens_per_second, 2),
        baseline_tokens_per_second=round(baseline.tokens_per_second, 2),
        rows=ours.answer.rows,
        baseline_rows=baseline.answer.rows,
        exactness=exactness,
        decoding=decoding,
        note=note,
        **asdict(setting),
    )


def agreement(ours: Decoded, baseline: Decoded) -> str:
    """Whether both gave the same tokens, and if not, from where on."""
    if ours.tokens == baseline.tokens:
        return SAME
    differing = [n for n, (a, b) in enumerate(zip(ours.tokens, baseline.tokens, strict=True)) if a != b]
    equal = len(ours.tokens) - len(differing)
    return f"{equal} of {len(ours.tokens)} tokens equal, the first {differing[0]} in a row"


HEAD = (
    "| row | ours | baseline | ratio | ms/pass | theirs | passes | theirs | tokens/s | theirs | tokens |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"| `{row.name}` {row.size} {row.quant} | {row.ours:.2f} ms/token | {row.baseline:.2f} | {row.ratio:.2f} | "
        f"{row.ms_per_pass:.1f} | {row.baseline_ms_per_pass:.1f} | {row.passes} | {row.baseline_passes} | "
        f"{row.tokens_per_second:.1f} | {row.baseline_tokens_per_second:.1f} | {row.exactness} |"
    )
