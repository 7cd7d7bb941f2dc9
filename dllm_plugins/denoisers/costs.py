"""What passes cost on one machine, as numbers: measured points and what lies between them."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from itertools import pairwise
from typing import Any

#: Up to so many rows costs are looked up; beyond them they go on as straight as between the last two points.
_TABLE = 256

#: Costs of passes over more rows are not told.
MOST_ROWS = 4096

#: (rows, milliseconds) in the order of the rows.
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Costs:
    """Milliseconds of a pass by what is forwarded in it, never less for more rows.

    :param clean: of passes over so many clean rows, with the head over all of them.
    :param open: of passes over one clean row and so many open ones, with the head over the clean one; empty
        where open rows cost what clean ones do.
    :param draft: of drawing one draft.
    """

    clean: Points
    open: Points = ()
    draft: float = 0.0

    @classmethod
    def of_clean(cls, points: Mapping[int, float]) -> "Costs":
        """Of clean rows alone, by their number."""
        return cls(tuple(sorted(points.items())))

    @classmethod
    def read(cls, stored: Any) -> "Costs":
        """What :meth:`stored` made.

        :raises ValueError: for anything else.
        """
        try:
            found = cls(_points(stored["clean"]), _points(stored["open"]), float(stored["draft"]))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"no costs of passes: {error!r}") from error
        if not found.clean or not 0 <= found.draft < float("inf"):
            raise ValueError("no costs of passes: there are no points, or drafts cost no number")
        return found

    def stored(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"clean": [list(point) for point in self.clean], "open": [list(point) for point in self.open]} | {
            "draft": self.draft
        }

    @cached_property
    def _clean(self) -> list[float]:
        return _between(self.clean)

    @cached_property
    def _surcharge(self) -> list[float]:
        """What so many open rows cost beyond as many clean ones; may be negative, the head is not over them."""
        one = (0, self._clean[1])
        return [found - self._clean[1 + rows] for rows, found in enumerate(_between((one, *self.open), _TABLE - 1))]

    def pass_over(self, clean: int, open_rows: int = 0) -> float:
        """Milliseconds of a pass over so many clean and open rows."""
        table, rows = self._clean, clean + open_rows
        cost = table[rows] if rows <= _TABLE else table[-1] + (table[-1] - table[-2]) * (rows - _TABLE)
        if not open_rows or not self.open:
            return cost
        extra = self._surcharge
        return max(cost + extra[min(open_rows, len(extra) - 1)], table[1])

    def __str__(self) -> str:
        return ", ".join(f"{rows} {'row' if rows == 1 else 'rows'} {taken:.1f} ms" for rows, taken in self.clean)


def _points(found: Any) -> Points:
    points = tuple(sorted((int(rows), float(taken)) for rows, taken in found))
    if any(not 1 <= rows <= MOST_ROWS or not 0 < taken < float("inf") for rows, taken in points):
        raise ValueError(f"no costs of passes: {points}")
    return points


def _between(points: Sequence[tuple[int, float]], most: int = _TABLE) -> list[float]:
    """Costs of 0, 1, ... `most` rows; what was measured more than for more rows was noise, which only makes slower."""
    least = accumulate((taken for _, taken in reversed(points)), min)
    rising = list(zip((rows for rows, _ in points), reversed(list(least)), strict=True))
    found = [rising[0][1]] * (rising[0][0] + 1)
    slope = 0.0
    for (begin, cheap), (end, dear) in pairwise(rising):
        slope = (dear - cheap) / (end - begin)
        found += [cheap + slope * step for step in range(1, end - begin + 1)]
    return (found + [found[-1] + slope * step for step in range(1, most + 2 - len(found))])[: most + 1]
