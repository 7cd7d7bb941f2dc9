"""What was measured of one task as a picture; the same numbers give the same bytes."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dllm_plugins.training.reasoning.evaluate import wilson
from dllm_plugins.training.reasoning.table import share_of

#: How a model is decoded where only one way is shown: the first of these that it has, a position a pass.
PLAIN = ("surest first", "blocks, a position a pass", "uniform flow", "left to right")
#: Ways of the panel of passes; the others have one number of passes.
_LINES = {"random order": ":", "surest first": "-", "MGDM's sampler": "--", "uniform flow": "-."}

Line = Mapping[str, Any]


def draw(lines: Sequence[Line], curves: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Write an SVG: right answers by passes, right answers by level, held-out losses over steps.

    :param lines: of one task and one seed, as :func:`~dllm_plugins.training.reasoning.table.lines_of` tells them.
    :param curves: of its cells, by name.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(line["method"] for line in lines))
    colours = {method: f"C{number}" for number, method in enumerate(methods)}
    with mpl.rc_context({"svg.hashsalt": "reasoning", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(13, 5.6), layout="constrained")
        passes, levels, losses = figure.subplots(1, 3)
        by_passes(passes, lines, colours)
        by_level(levels, lines, colours)
        for name, curve in curves.items():
            losses.plot([point["step"] for point in curve], [point["held_out"] for point in curve], label=name)
        losses.set_xlabel("steps of its own")
        losses.set_ylabel("held-out loss, each method's own")
        losses.set_yscale("log")
        for place in (passes, levels, losses):
            place.grid(visible=True, linewidth=0.3)
            place.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def by_passes(place: Any, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    """Shares of right answers over the passes asked for, with 95 % intervals; a mark where there is only one number."""
    for method, colour in colours.items():
        for way, style in _LINES.items():
            mine = sorted((line for line in lines if (line["method"], line["way"]) == (method, way)), key=_passes)
            if mine:
                bars(place, [_passes(line) for line in mine], mine, colour, style, f"{method}, {way}")
        left = [line for line in lines if (line["method"], line["way"]) == (method, "left to right")]
        if left:
            bars(place, [_passes(line) for line in left], left, colour, "x", f"{method}, left to right")
    place.set_xscale("log", base=2)
    place.set_xlabel("passes an answer")
    place.set_ylabel("right, %")


def bars(place: Any, along: Sequence[float], lines: Sequence[Line], colour: str, style: str, label: str) -> None:
    """Percentages with their intervals."""
    shares = [100 * share_of(dict(line)) for line in lines]
    ends = [wilson(sum(line["right"].values()), sum(line["of"].values())) for line in lines]
    low = [share - 100 * end[0] for share, end in zip(shares, ends, strict=True)]
    high = [100 * end[1] - share for share, end in zip(shares, ends, strict=True)]
    place.errorbar(along, shares, [low, high], fmt=style, color=colour, capsize=2, linewidth=1, label=label)


def by_level(place: Any, lines: Sequence[Line], colours: Mapping[str, str]) -> None:
    """Shares of right answers by level, each model decoded in its plain way."""
    for method, colour in colours.items():
        line = plain(lines, method)
        levels = sorted(line["of"], key=int)
        shares = [100 * line["right"].get(level, 0) / line["of"][level] for level in levels]
        place.plot([int(level) for level in levels], shares, "o-", color=colour, linewidth=1, label=method)
    place.set_xticks(sorted({int(level) for line in lines for level in line["of"]}))
    place.set_xlabel("level of the question")
    place.set_ylabel("right, %, a position a pass")


def plain(lines: Sequence[Line], method: str) -> Line:
    """What a model did in its plain way, with the most passes that were asked for."""
    own = [line for line in lines if line["method"] == method]
    way = next(way for way in PLAIN if any(line["way"] == way for line in own))
    return max((line for line in own if line["way"] == way), key=lambda line: line["asked"])


def _passes(line: Line) -> float:
    return float(line["passes"])
