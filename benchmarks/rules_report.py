"""What `rules.py` measured, as scores and tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aup import aup
from aup import pareto

#: Points of quality that a setting may lose and still count as good.
LOST = 1.0


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting did; shares in percent.

    :param quality: answers the checker accepts; without one, `agreement`.
    :param agreement: tokens equal to slow decoding's, place by place.
    :param same: answers equal to slow decoding's.
    :param passes: an answer's, on average.
    """

    method: str
    setting: str
    quality: float
    agreement: float
    same: float
    passes: float
    tokens_per_pass: float
    tokens_per_second: float


def scores(points: Sequence[Point]) -> dict[str, float]:
    """AUP of every method, each with slow decoding as its first point; the best first."""
    best = max(item.quality for item in points) or 100.0
    curves: dict[str, list[tuple[float, float]]] = {}
    for item in points:
        curves.setdefault(item.method, []).append((item.tokens_per_pass, item.quality))
    begin = curves["slow"]
    found = {name: round(aup(begin + curve, best), 1) for name, curve in curves.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def table(name: str, result: dict[str, Any]) -> str:
    """A Markdown table of one model's points; those on the Pareto front of passes are marked."""
    points = [Point(**item) for item in result["points"]]
    front = set(pareto([(item.tokens_per_pass, item.quality) for item in points]))
    lines = [
        f"{name}: quality is {result['quality']}, {result['answers']} answers of at most {result['tokens']} tokens",
        "",
        "| setting | quality | agreement | same answers | passes | tokens/pass | tokens/s | front |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for index, item in enumerate(points):
        lines.append(
            f"| {item.method} {item.setting} | {item.quality:.1f} | {item.agreement:.1f} | {item.same:.1f} | "
            f"{item.passes:.1f} | {item.tokens_per_pass:.2f} | {item.tokens_per_second:.0f} | "
            f"{'yes' if index in front else ''} |"
        )
    return "\n".join(lines)


def summary(result: dict[str, Any]) -> str:
    """A Markdown table of one model's methods: AUP, and how far each goes before it costs a point of quality."""
    points = [Point(**item) for item in result["points"]]
    bar = next(item.quality for item in points if item.method == "slow") - LOST
    lines = [
        "| method | AUP | fastest setting that loses at most 1 % | quality | tokens/pass | tokens/s |",
        "|---|---|---|---|---|---|",
    ]
    for method, score in result["aup"].items():
        good = [item for item in points if item.method == method and item.quality >= bar]
        best = max(good, key=lambda item: item.tokens_per_pass, default=None)
        told = (
            f"{best.setting or '-'} | {best.quality:.1f} | {best.tokens_per_pass:.2f} | {best.tokens_per_second:.0f}"
            if best
            else "none | | |"
        )
        lines.append(f"| {method} | {score:.1f} | {told} |")
    return "\n".join(lines)
