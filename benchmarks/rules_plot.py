"""The plot of `rules.py`: quality against tokens a pass and tokens a second, with the Pareto front.

A thin line joins the settings of a method that no other of its settings beats.

The same results give the same bytes.
"""

from itertools import cycle
from itertools import product
from pathlib import Path
from typing import Any

from aup import pareto

AXES = {"tokens_per_pass": "tokens / pass", "tokens_per_second": "tokens / second, one request at a time"}
#: As many as share no factor with the colours, so that no two methods look the same.
MARKERS = "osD^vP*X<>p"


def styles(methods: list[str]) -> dict[str, tuple[str, Any]]:
    """A marker and a colour for each method."""
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return dict(zip(methods, zip(cycle(MARKERS), cycle(colours[::2] + colours[1::2]), strict=False), strict=False))


def draw(models: dict[str, Any], path: Path) -> None:
    """Write an SVG with a row for each model and a column for each axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(point["method"] for result in models.values() for point in result["points"]))
    style = styles(methods)
    with mpl.rc_context({"svg.hashsalt": "rules", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(11, 4.2 * len(models) + 0.6), layout="constrained")
        places = figure.subplots(len(models), len(AXES), squeeze=False)
        for (row, name), (column, axis) in product(enumerate(models), enumerate(AXES)):
            panel(places[row][column], name, models[name], axis, style)
        shown: dict[str, Any] = {}
        for place in places.flat:
            shown |= dict(zip(*reversed(place.get_legend_handles_labels()), strict=True))
        figure.legend(shown.values(), shown.keys(), loc="outside right upper", frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def panel(place: Any, name: str, result: dict[str, Any], axis: str, style: dict[str, tuple[str, Any]]) -> None:
    """One model against one axis."""
    points = result["points"]
    front = [points[index] for index in pareto([(point[axis], point["quality"]) for point in points])]
    place.step(
        [point[axis] for point in front],
        [point["quality"] for point in front],
        where="pre",
        color="black",
        linewidth=1,
        label="Pareto front",
        zorder=1,
    )
    for method, (marker, colour) in style.items():
        mine = [(point[axis], point["quality"]) for point in points if point["method"] == method]
        best = [mine[index] for index in pareto(mine)]
        if mine:
            place.scatter(
                *zip(*mine, strict=True), marker=marker, color=[colour], s=22, alpha=0.8, label=method, zorder=3
            )
            place.plot(*zip(*best, strict=True), color=colour, linewidth=0.8, zorder=2)
    place.set_title(f"{name}, {result['answers']} answers")
    place.set_xlabel(AXES[axis])
    place.set_ylabel(f"{result['quality']}, %")
    place.grid(visible=True, linewidth=0.3)
