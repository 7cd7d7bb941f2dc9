"""The rows of `block_pass.py`: what is compared, and how the table shows it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison; milliseconds are medians.

    :param prefix: frozen positions before the pass.
    :param exactness: what of the result was compared with what, and how it came out.
    """

    name: str
    ours: float
    baseline: float
    unit: str
    ratio: float
    times_baseline: float
    rows: float
    prefix: int
    dtype: str
    threads: int
    exactness: str


@dataclass(frozen=True, slots=True)
class Setting:
    """What all comparisons share.

    :param rows: positions of a pass.
    :param rounds: turns of the contestants.
    :param backend: of the default model.
    """

    rows: int
    prefix: int
    rounds: int
    backend: str | None

    @property
    def answers(self) -> int:
        """How often whole answers are decoded."""
        return max(3, self.rounds // 5)

    def row(self, name: str, ours: float, baseline: float, dtype: str, exactness: str, **other: Any) -> Row:
        """A comparison of two times."""
        fields = {"unit": "ms/pass", "rows": self.rows, "prefix": self.prefix, **other}
        return Row(
            name=name,
            ours=round(ours, 3),
            baseline=round(baseline, 3),
            ratio=round(baseline / ours, 4),
            times_baseline=round(ours / baseline, 4),
            dtype=dtype,
            threads=torch.get_num_threads(),
            exactness=exactness,
            **fields,
        )


def agreement(ours: Tensor, theirs: Tensor) -> str:
    """How many rows of logits [N, V] have the same largest one, and how far they are apart."""
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    apart = float((ours.float() - theirs.float()).norm() / theirs.float().norm())
    return f"{same} of {len(ours)} tokens equal, logits {apart:.1%} apart"


HEAD = ("| row | ours | baseline | ours / baseline | rows | prefix | exactness |", "|---|---|---|---|---|---|---|")


def line(row: Row) -> str:
    """A row of the table."""
    return (
        f"| `{row.name}` | {row.ours:.2f} {row.unit} | {row.baseline:.2f} | {row.times_baseline:.3f} | "
        f"{row.rows:g} | {row.prefix} | {row.exactness} |"
    )
