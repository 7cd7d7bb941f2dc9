"""What each row has to answer for of the passes it shares, so that the speed of modes can be compared in company.

The seconds of a pass are a part that all rows share alike, and a part for each position that a row forwards. How
dear a position is, is fitted to the passes seen, those with as many rows by themselves. A row that forwards more is
charged for it whoever its company are; so the mode that is cheapest for one row is cheapest for all of them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dllm_plugins.decoding.program import Pass

if TYPE_CHECKING:
    from dllm_plugins.engine.job import Job

#: Of the passes seen before, so much counts when one is added.
_KEPT = 0.98


@dataclass(slots=True)
class CostLine:
    """Seconds of passes by their positions, straight, by least squares; older passes fade."""

    count: float = 0.0
    positions: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0

    def add(self, positions: int, seconds: float) -> None:
        """One more pass."""
        self.count = _KEPT * self.count + 1
        self.positions = _KEPT * self.positions + positions
        self.seconds = _KEPT * self.seconds + seconds
        self.squares = _KEPT * self.squares + positions * positions
        self.products = _KEPT * self.products + positions * seconds

    @property
    def slope(self) -> float:
        """Seconds of one position more; 0 where all passes had as many."""
        if not self.count:
            return 0.0
        mean = self.positions / self.count
        spread = self.squares / self.count - mean * mean
        return max(0.0, (self.products / self.count - mean * self.seconds / self.count) / spread) if spread > 0 else 0.0


class Charges:
    """Shares the seconds of passes out among their rows."""

    def __init__(self) -> None:
        self._lines: dict[int, CostLine] = {}

    def note(self, jobs: "Sequence[Job]", passes: Mapping[int, Pass], lengths: Sequence[int], seconds: float) -> None:
        """Note what a pass gave its rows and took; not where a prompt took part, which would drown the rest.

        Nor of a row in which another mode has just gone on: that pass was one without drafts to verify.

        :param lengths: of the rows' final tokens before it.
        """
        if any(job.row.error is not None or job.row.step == 0 for job in jobs):
            return
        forwarded = [passes[job.row.number].forwarded for job in jobs]
        for job, before, share in zip(jobs, lengths, self.shares(forwarded, seconds), strict=True):
            if not job.resumed:
                job.measured.add(len(job.row.tokens) - before, share, len(jobs))
            job.resumed = False

    def shares(self, positions: Sequence[int], seconds: float) -> list[float]:
        """Of each row of a pass, whose sum is `seconds`.

        :param positions: that each of them forwarded.
        """
        line, whole = self._lines.setdefault(len(positions), CostLine()), sum(positions)
        line.add(whole, seconds)
        slope = min(line.slope, seconds / whole) if whole else 0.0
        alike = (seconds - slope * whole) / len(positions)
        return [alike + slope * own for own in positions]
