"""Commit rules on small tensors, against their definitions written out."""

import sys
import threading

import pytest
import torch
from torch import Tensor

from dllm_plugins import SamplingConfig
from dllm_plugins.noise import RowNoise
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules import CommitRule
from dllm_plugins.rules import FactorRule
from dllm_plugins.rules import PositionAwareRule
from dllm_plugins.rules import QuotaRule
from dllm_plugins.rules import RandomRule
from dllm_plugins.rules import ThresholdRule
from dllm_plugins.rules import parameters
from dllm_plugins.rules.base import check_parameters
from dllm_plugins.rules.position_aware import PositionAwareSettings
from dllm_plugins.rules.quota import pass_quota


def view(
    probability: list[list[float]], committed_now: int = 0, step: int = 0, closed: tuple[int, ...] = ()
) -> CanvasView:
    """A canvas with some positions closed."""
    numbers = torch.tensor(probability)
    is_open = torch.ones_like(numbers, dtype=torch.bool)
    is_open[:, list(closed)] = False
    rows = len(numbers)
    return CanvasView(
        probability=numbers,
        open=is_open,
        committed_now=torch.full((rows,), committed_now),
        step=torch.full((rows,), step),
        noise=tuple(RowNoise(seed) for seed in range(rows)),
    )


def decide(rule: CommitRule, seen: CanvasView, **options: object) -> Tensor:
    """The decision with one config for all rows."""
    configs = (SamplingConfig(**options),) * len(seen.probability)
    return rule.decide(seen, configs, None)[0]


def positions(decision: Tensor) -> list[list[int]]:
    """Committed positions of each row."""
    return [row.nonzero()[:, 0].tolist() for row in decision]


def test_threshold_commits_what_is_sure() -> None:
    """All above the threshold; without any, the most probable one, unless the frontier counts already."""
    rule = ThresholdRule()
    seen = view([[0.95, 0.5, 0.91, 0.9], [0.1, 0.3, 0.3, 0.2]])
    assert positions(decide(rule, seen)) == [[0, 2], [1]]
    assert positions(decide(rule, seen, threshold=0.4)) == [[0, 1, 2, 3], [1]]
    assert positions(decide(rule, view([[0.1, 0.2]], committed_now=1))) == [[]]
    assert positions(decide(rule, view([[0.99, 0.2]], closed=(0,)))) == [[1]]


def test_factor_commits_the_largest_group_that_is_sure_together() -> None:
    """c_n >= 1 - factor / (n + 1), n counted from the tokens this pass committed already."""
    rule = FactorRule()
    assert positions(decide(rule, view([[0.9, 0.8, 0.7, 0.1]]))) == [[0, 1]]
    assert positions(decide(rule, view([[0.9, 0.8, 0.8, 0.8]]))) == [[0, 1, 2, 3]]
    assert positions(decide(rule, view([[0.1, 0.2, 0.3, 0.1]]))) == [[2]]
    assert positions(decide(rule, view([[0.1, 0.2, 0.3, 0.1]], committed_now=1))) == [[]]
    assert positions(decide(rule, view([[0.7, 0.1, 0.1, 0.1]], committed_now=1))) == [[0]]
    assert positions(decide(rule, view([[0.3, 0.3, 0.3, 0.1]]), factor=3.0)) == [[0, 1, 2]]


@pytest.mark.parametrize(("length", "steps"), [(8, 8), (8, 4), (8, 3), (10, 4), (5, 1), (32, 7)])
def test_quota_spreads_a_block_over_its_steps(length: int, steps: int) -> None:
    """LLaDA's schedule: shares differ by one at most, the larger first, and add up to the block."""
    shares = [pass_quota(length, steps, step) for step in range(steps)]
    assert sum(shares) == length
    assert shares == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1
    assert pass_quota(length, steps, steps) == shares[0]


def test_quota_takes_the_most_probable() -> None:
    """The quota less what the pass committed already; ties go left; closed positions are left alone."""
    rule = QuotaRule()
    seen = view([[0.2, 0.9, 0.9, 0.1, 0.3, 0.3, 0.3, 0.3]])
    assert positions(decide(rule, seen, steps=4)) == [[1, 2]]
    assert positions(decide(rule, view(seen.probability.tolist(), committed_now=1), steps=4)) == [[1]]
    assert positions(decide(rule, view(seen.probability.tolist(), closed=(1,)), steps=4)) == [[2, 4]]
    assert positions(decide(rule, seen)) == [[1]]
    assert positions(decide(rule, seen, steps=1)) == [list(range(8))]


def test_random_depends_on_seed_and_step_only() -> None:
    """Another step or seed gives another order; the batch does not matter; probabilities do not matter."""
    rule = RandomRule()
    flat = [[0.5] * 16]
    first = positions(decide(rule, view(flat * 3), steps=4))
    assert first[0] == positions(decide(rule, view([[0.1 * (i % 7) for i in range(16)]]), steps=4))[0]
    assert all(len(row) == 4 for row in first)
    assert first[0] != first[1]
    assert first[0] != positions(decide(rule, view(flat, step=1), steps=4))[0]


def test_random_is_uniform() -> None:
    """Every position is first equally often: 4,000 draws over 8 positions, chi-square."""
    rule, counts = RandomRule(), torch.zeros(8)
    for step in range(4000):
        counts += decide(rule, view([[0.5] * 8], step=step), steps=8)[0]
    chi_square = float(((counts - 500) ** 2 / 500).sum())
    assert counts.sum() == 4000
    assert chi_square < 42.0  # 7 degrees of freedom: one false alarm in two million


@pytest.mark.parametrize("rule", [ThresholdRule(), FactorRule(), QuotaRule(), RandomRule()])
def test_rules_commit_open_positions_only_and_always_move(rule: CommitRule) -> None:
    """On random canvases: a subset of the open positions, and at least one if nothing was committed."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(200):
        probability = torch.rand(3, 8, generator=generator)
        seen = CanvasView(
            probability=probability,
            open=torch.rand(3, 8, generator=generator) < 0.6,
            committed_now=torch.zeros(3, dtype=torch.int64),
            step=torch.full((3,), trial),
            noise=tuple(RowNoise(seed) for seed in range(3)),
        )
        decision = decide(rule, seen)
        assert not (decision & ~seen.open).any()
        assert torch.equal(decision.any(-1), seen.open.any(-1))


def test_parameters_are_read_once_a_request() -> None:
    """The same object in every pass; read anew when the next request is checked, and never another request's."""
    rule = PositionAwareRule()
    one, other = (SamplingConfig(rule=rule.name, rule_options={"decay": decay}) for decay in (0.5, 0.75))
    check_parameters(rule, one)
    first = parameters(PositionAwareSettings, one, rule.name)
    assert parameters(PositionAwareSettings, one, rule.name) is first
    assert parameters(PositionAwareSettings, other, rule.name).decay == 0.75
    check_parameters(rule, one)
    again = parameters(PositionAwareSettings, one, rule.name)
    assert again == first
    assert again is not first


def test_parameters_are_remembered_by_many_threads_at_once() -> None:
    """More of them than are remembered: every thread gets its own, and none trips over another."""
    rule = PositionAwareRule()
    right: list[bool] = []

    def work(number: int) -> None:
        for turn in range(150):
            decay = (1 + 150 * number + turn) / 1000
            config = SamplingConfig(rule=rule.name, rule_options={"decay": decay})
            check_parameters(rule, config)
            right.append(parameters(PositionAwareSettings, config, rule.name).decay == decay)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert len(right) == 900
    assert all(right)
