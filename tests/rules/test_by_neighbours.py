"""Rules that look at what stands next to what: dInfer's hierarchical rule and LocalLeap."""

import pytest

from dllm_plugins.rules import HierarchicalRule
from dllm_plugins.rules import LocalLeapRule
from tests.rules.views import chosen
from tests.rules.views import view


def test_hierarchical_commits_the_best_of_each_run() -> None:
    """Runs are what committed positions separate."""
    rule, probability = HierarchicalRule(), [[0.5, 0.6, 0.1, 0.9, 0.45, 0.7, 0.2, 0.41]]
    assert chosen(rule, view(probability)) == [[3]]
    assert chosen(rule, view(probability, closed=(3,))) == [[1, 5]]
    assert chosen(rule, view(probability, closed=(1, 3, 5))) == [[0, 4, 7]]
    assert chosen(rule, view(probability, closed=(1, 3, 5)), own={"low_threshold": 0.46}) == [[0]]
    assert chosen(rule, view(probability, closed=(1, 3, 5)), own={"low_threshold": 0.95}) == [[0]]
    assert chosen(rule, view(probability, closed=(3,)), threshold=0.49) == [[0, 1, 5]]
    assert chosen(rule, view([[0.6, 0.6, 0.6]])) == [[0]]
    assert chosen(rule, view([[0.1, 0.2, 0.1]])) == [[1]]
    assert chosen(rule, view([[0.1, 0.2, 0.1]], committed_now=1)) == [[]]


def test_hierarchical_needs_the_logarithm_of_the_length() -> None:
    """With the middle always the best: 31 positions in 5 passes."""
    closed, passes = set[int](), 0
    while len(closed) < 31:
        probability = [[0.5 + (position + 1 & -(position + 1)) / 100 for position in range(31)]]
        closed |= set(chosen(HierarchicalRule(), view(probability, closed=tuple(closed)))[0])
        passes += 1
    assert passes == 5


def test_hierarchical_serves_a_run_once_a_pass() -> None:
    """A later call in one pass does not halve the halves; places that do not touch are two runs."""
    rule, probability = HierarchicalRule(), [[0.5, 0.6, 0.1, 0.9, 0.45, 0.7, 0.2, 0.41]]
    assert chosen(rule, view(probability, meanwhile=(3,))) == [[]]
    assert chosen(rule, view(probability, closed=(3,), meanwhile=(1,))) == [[5]]
    assert chosen(rule, view(probability, meanwhile=(3,)), threshold=0.65) == [[5]]
    apart = [0, 1, 2, 3, 10, 11, 12, 13]
    assert chosen(rule, view(probability, position=apart)) == [[3, 5]]
    assert chosen(rule, view(probability, position=apart, meanwhile=(3,))) == [[5]]


def test_local_leap_relaxes_near_anchors() -> None:
    """By hand: an anchor at 5; 0.75 suffices up to 4 positions away."""
    rule = LocalLeapRule()
    probability = [[0.8, 0.75, 0.74, 0.5, 0.76, 0.9, 0.75, 0.1, 0.8, 0.8, 0.89]]
    assert chosen(rule, view(probability)) == [[1, 4, 5, 6, 8, 9]]
    assert chosen(rule, view(probability), own={"radius": 1}) == [[4, 5, 6]]
    assert chosen(rule, view(probability), own={"radius": 0}) == [[5]]
    assert chosen(rule, view(probability), own={"relaxed": 0.5}) == [[1, 2, 3, 4, 5, 6, 8, 9]]
    assert chosen(rule, view(probability), threshold=0.95) == [[5]]
    assert chosen(rule, view(probability), threshold=0.89, own={"radius": 1}) == [[4, 5, 6, 9, 10]]
    assert chosen(rule, view(probability, closed=(5,))) == [[10]]
    assert chosen(rule, view(probability, closed=(5,), committed_now=1)) == [[]]


@pytest.mark.parametrize(("position", "expected"), [([0, 4, 5, 6], [0, 1]), ([0, 5, 6, 7], [0])])
def test_local_leap_counts_places_not_columns(position: list[int], expected: list[int]) -> None:
    """A canvas leaves out what is committed."""
    assert chosen(LocalLeapRule(), view([[0.95, 0.8, 0.8, 0.8]], position=position)) == [expected]


def test_local_leap_knows_the_anchors_of_its_pass() -> None:
    """One that an earlier call of the pass committed still vouches for its neighbours; an older one does not."""
    assert chosen(LocalLeapRule(), view([[0.95, 0.8, 0.8]], meanwhile=(0,))) == [[1, 2]]
    assert chosen(LocalLeapRule(), view([[0.95, 0.8, 0.79]], closed=(0,))) == [[1]]
