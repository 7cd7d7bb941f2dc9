"""The plot of `growth.py`: a pass against its prefix and against its rows, and its parts.

The same points give the same bytes.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Rows of the pass whose parts are shown, or as near as there are.
SHOWN = 16


def draw(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG with three panels."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(12, 4), layout="constrained", dpi=120)
        left, middle, right = figure.subplots(1, 3)
        curves(left, points, "prefix", "rows", "frozen positions before the pass")
        curves(middle, points, "rows", "prefix", "rows of the pass")
        parts(right, points)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", metadata={"Software": None})


def curves(place: Any, points: Sequence[Mapping[str, Any]], along: str, each: str, label: str) -> None:
    """Milliseconds along one size, a line for each value of the other."""
    for value in sorted({point[each] for point in points}):
        mine = sorted((point[along], point["ms"]) for point in points if point[each] == value)
        place.plot(*zip(*mine, strict=True), marker="o", markersize=3, linewidth=1, label=f"{value}")
    log_axis(place, sorted({point[along] for point in points}), label)
    place.set_ylabel("ms / pass")
    place.set_ylim(bottom=0)
    place.legend(title=each, frameon=False)


def parts(place: Any, points: Sequence[Mapping[str, Any]]) -> None:
    """What a pass of about SHOWN rows is made of behind every prefix."""
    rows = nearest({point["rows"] for point in points})
    mine = sorted((point for point in points if point["rows"] == rows), key=lambda point: point["prefix"])
    prefixes = [point["prefix"] for point in mine]
    names = list(mine[0]["parts"])
    place.stackplot(prefixes, [[point["parts"][name] for point in mine] for name in names], labels=names, alpha=0.8)
    log_axis(place, prefixes, "frozen positions before the pass")
    place.set_ylabel(f"ms / pass of {rows} rows")
    place.legend(loc="upper left", framealpha=0.8)


def nearest(rows: Collection[int]) -> int:
    """The number of rows that is nearest to SHOWN."""
    return min(rows, key=lambda count: abs(count - SHOWN))


def log_axis(place: Any, ticks: Sequence[int], label: str) -> None:
    """Powers of two at equal distances."""
    place.set_xscale("log", base=2)
    place.set_xticks(ticks, [str(tick) for tick in ticks])
    place.minorticks_off()
    place.set_xlabel(label)
    place.grid(visible=True, linewidth=0.3)
