"""AUP, accuracy under parallelism: one number for a curve of quality against tokens per pass.

As hao-ai-lab/d3LLM defines it (`AUP_leaderboard/aup_utils.py`, arXiv 2601.07568). A point is
(tokens per pass, quality in percent). The area under the curve counts full quality at the
first point, from there on y * W(y) with W(y) = min(exp(-3 (1 - y / y_max)), 1), so quality
lost weighs more than linearly. Where points lie more than 5 below the first, the reference
refuses the curve if it ends so and else leaves them out; here they are left out.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

#: d3LLM's numbers.
PENALTY = 3.0
MOST_LOST = 5.0


def weight(quality: float, best: float) -> float:
    """W(y): 1 at the best quality any method reaches, less below."""
    return min(math.exp(-PENALTY * (1 - quality / best)), 1.0)


def aup(points: Sequence[tuple[float, float]], best: float) -> float:
    """The area under a method's curve.

    :param points: (tokens per pass, quality in percent), in any order.
    :param best: the best quality of all methods compared, in percent; above 0.
    :raises ValueError: if there are no points, or `best` or a point's tokens per pass are not above 0.
    """
    if not points or best <= 0 or any(tokens <= 0 for tokens, _ in points):
        raise ValueError(f"AUP needs points of more than 0 tokens a pass and best > 0, got {points} and {best}")
    ordered = sorted(points, key=lambda point: (point[0], -point[1]))
    kept = [point for point in ordered if point[1] >= ordered[0][1] - MOST_LOST]
    area = kept[0][0] * kept[0][1]
    for (left, before), (right, after) in pairwise(kept):
        area += (right - left) * (after * weight(after, best) + before * weight(before, best)) / 2
    return area


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in one coordinate without losing in the other, left to right."""
    order = sorted(range(len(points)), key=lambda index: (-points[index][0], -points[index][1]))
    front: list[int] = []
    for index in order:
        if not front or points[index][1] > points[front[-1]][1]:
            front.append(index)
    return front[::-1]
