"""The test of a sampler is itself tested: it rejects what is wrong by 0.02, and nothing that is right."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm_plugins.training.chain import Chain

from .checks import ALPHA
from .checks import POWER
from .checks import assert_distribution
from .checks import p_value
from .checks import samples_needed


def wrong_by(truth: Tensor, distance: float) -> Tensor:
    """The distribution this far away that is hardest to tell: half the mass grows, half shrinks, in proportion."""
    order = truth.argsort(descending=True)
    grown = torch.zeros(len(truth), dtype=torch.bool)
    mass = 0.0
    for cell in order.tolist():
        if mass + float(truth[cell]) <= 0.5:
            mass, grown[cell] = mass + float(truth[cell]), True
    found = torch.where(grown, truth * (1 + distance / mass), truth * (1 - distance / (1 - mass)))
    assert abs(float((found - truth).abs().sum() / 2) - distance) < 1e-12
    return found


@pytest.mark.parametrize("length", [3, 4])
def test_an_error_of_two_percent_is_seen(length: int) -> None:
    """By at least 99 of 100 runs, for the error that shows least: counted over 3,000 runs with fixed seeds.

    As many answers as the tests of samplers count.
    """
    truth = Chain.random(3, 3, 0, evenness=0.3).distribution(length, (0,))
    samples, wrong, generator = samples_needed(len(truth)), wrong_by(truth, 0.02), np.random.default_rng(1)
    rejected = [
        p_value(torch.from_numpy(generator.multinomial(samples, wrong.numpy())), truth) < ALPHA for _ in range(3000)
    ]
    assert np.mean(rejected) >= POWER
    smaller = p_value(torch.from_numpy(generator.multinomial(samples // 4, wrong.numpy())), truth)
    assert smaller > ALPHA, "the sample size matters"


def test_a_right_sampler_passes() -> None:
    """p-values of exact draws are uniform: none below alpha, a tenth below a tenth."""
    truth = Chain.random(3, 3, 0, evenness=0.3).distribution(4, (0,))
    samples, generator = samples_needed(len(truth)), np.random.default_rng(2)
    found = [p_value(torch.from_numpy(generator.multinomial(samples, truth.numpy())), truth) for _ in range(400)]
    assert min(found) > ALPHA
    assert 0.05 < np.mean(np.array(found) < 0.1) < 0.15


def test_the_message_says_how_far_off() -> None:
    """And impossible answers are an error whatever their number."""
    truth = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    assert_distribution(torch.tensor([5010, 4990, 0]), truth)
    with pytest.raises(AssertionError, match=r"total variation of the counts 0\.1"):
        assert_distribution(torch.tensor([6000, 4000, 0]), truth)
    with pytest.raises(AssertionError, match="impossible"):
        assert_distribution(torch.tensor([5000, 4999, 1]), truth)


def test_sample_sizes() -> None:
    """Grow with the number of answers, and with the square of what is to be seen."""
    assert samples_needed(3**4) < samples_needed(3**6) < samples_needed(3**8)
    assert samples_needed(3**6, total_variation=0.01) == pytest.approx(4 * samples_needed(3**6), rel=1e-4)
