"""The plot of `mixture.py`: what the router's choices have cost so far. The same points give the same bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dllm_plugins.routing.bandit import MOST_REGRET


class Point(NamedTuple):
    """After an answer of mode `auto`: seconds of regret, and of all answers that were measured."""

    regret: float
    seconds: float


def draw(points: Sequence[Point], path: Path) -> None:
    """Write a PNG: regret over the answers, beside what it is kept below where modes are measured again."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(6, 4), layout="constrained", dpi=120)
        place = figure.subplots()
        answers = range(1, len(points) + 1)
        place.plot(answers, [point.regret for point in points], label="regret")
        place.plot(
            answers,
            [MOST_REGRET * point.seconds for point in points],
            linestyle=":",
            label=f"{MOST_REGRET:.0%} of the time",
        )
        place.set_xlabel("answers of mode auto")
        place.set_ylabel("seconds")
        place.set_ylim(bottom=0)
        place.legend(frameon=False)
        place.grid(visible=True, linewidth=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", metadata={"Software": None})
