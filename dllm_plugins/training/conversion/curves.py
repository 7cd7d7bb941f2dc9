"""The curves of a run as a picture; the same numbers give the same bytes."""

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(history: Sequence[Mapping[str, Any]], base: float, path: Path) -> None:
    """Write a PNG: the training loss, and the bound of held-out texts, over the steps.

    :param history: what the Trainer logged.
    :param base: nats a token of the autoregressive base on the same texts.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(6, 3.6), layout="constrained", dpi=110)
        place = figure.subplots()
        for key, name, style in (("loss", "training loss", "-"), ("eval_bound", "held-out bound", "o-")):
            steps, values = zip(*((line["step"], line[key]) for line in history if key in line), strict=True)
            place.plot(steps, values, style, label=name, linewidth=1, markersize=3)
        place.axhline(base, linestyle=":", color="black", label="the base, left to right")
        place.set_xlabel("steps")
        place.set_ylabel("nats a token")
        place.set_ylim(bottom=0)
        place.legend(frameon=False)
        place.grid(visible=True, linewidth=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", metadata={"Software": None})
