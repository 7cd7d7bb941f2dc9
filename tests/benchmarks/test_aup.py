"""AUP and the Pareto front on points worked out by hand."""

import math

import pytest

from aup import aup
from aup import pareto
from aup import weight


def test_one_point_is_a_rectangle() -> None:
    """What is reached at the first point counts in full, whatever others reach."""
    assert aup([(2.0, 60.0)], best=90.0) == 120.0


def test_no_loss_is_plain_area() -> None:
    """At the best quality all along, AUP is quality times the most tokens a pass."""
    assert aup([(1.0, 80.0), (3.0, 80.0), (2.0, 80.0)], best=80.0) == pytest.approx(240.0)


def test_loss_weighs_exponentially() -> None:
    """1 * 80 + (2 - 1) * (80 * 1 + 76 e^-0.15) / 2: 76 is 5 % below the best."""
    assert weight(76.0, 80.0) == pytest.approx(math.exp(-0.15))
    assert aup([(1.0, 80.0), (2.0, 76.0)], best=80.0) == pytest.approx(80 + (80 + 76 * 0.8607079764) / 2)


def test_better_than_the_best_is_not_rewarded() -> None:
    """W is at most 1."""
    assert weight(81.0, 80.0) == 1.0
    assert aup([(1.0, 81.0), (2.0, 81.0)], best=80.0) == pytest.approx(162.0)


def test_points_too_far_below_the_first_do_not_count() -> None:
    """More than 5 below the first point is out, exactly 5 is in, and the line goes on behind a hole."""
    assert aup([(1.0, 80.0), (4.0, 74.9)], best=80.0) == 80.0
    assert aup([(1.0, 80.0), (4.0, 75.0)], best=80.0) > 80.0
    with_hole = [(1.0, 80.0), (2.0, 10.0), (3.0, 80.0)]
    assert aup(with_hole, best=80.0) == pytest.approx(240.0)


def test_equally_fast_points() -> None:
    """Of two at the same place the better one is the first, whatever their order."""
    for points in ([(1.0, 70.0), (1.0, 80.0)], [(1.0, 80.0), (1.0, 70.0)]):
        assert aup(points, best=80.0) == 80.0


@pytest.mark.parametrize(("points", "best"), [([], 80.0), ([(0.0, 80.0)], 80.0), ([(1.0, 80.0)], 0.0)])
def test_nonsense_is_refused(points: list[tuple[float, float]], best: float) -> None:
    """No points, no tokens, no best quality."""
    with pytest.raises(ValueError, match="AUP needs"):
        aup(points, best)


def test_pareto() -> None:
    """A point stays if no other is at least as good in both; of equal ones the first."""
    points = [(1.0, 90.0), (2.0, 90.0), (3.0, 80.0), (3.0, 85.0), (4.0, 60.0), (2.5, 70.0), (2.0, 90.0)]
    assert pareto(points) == [1, 3, 4]
    assert pareto([]) == []
