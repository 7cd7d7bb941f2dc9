"""Draws in the tail, where float32 noise fails (arXiv 2409.02908), and draws of different keys."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2_contingency
from torch import Tensor

from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import gumbel_max
from dllm_plugins.prediction import predict

from .checks import ALPHA

GAP = 18.0  # log-probability by which the rare token trails the likely one
RARE = 1 / (1 + math.exp(GAP))


def gumbel32(uniform: Tensor) -> Tensor:
    """What a float32 sampler computes."""
    return -torch.log(-torch.log(uniform.float()))


def test_float32_noise_hardly_ever_draws_a_rare_token() -> None:
    """Exactly, over all 2^24 numbers that float32 `rand` can give: the largest Gumbel number is 16.64.

    A token of probability 1.5e-8 is drawn less than a quarter as often as it should; one of 2e-9
    less than a thousandth. With a vocabulary of 150,000 such tokens are a good part of the mass.
    """
    grid = torch.arange(1, 2**24, dtype=torch.float64) / 2**24
    noise = gumbel32(grid).double()
    assert 16.6 < float(noise.max()) < 16.7

    def wins(gap: float) -> float:
        """How often the rare token's number beats the likely one's by more than the gap."""
        below = torch.searchsorted(noise, noise - gap)
        return float(below.double().sum()) / len(noise) ** 2

    assert wins(6.0) == pytest.approx(1 / (1 + math.exp(6.0)), rel=0.01), "likely enough tokens are drawn rightly"
    assert wins(GAP) < RARE / 4
    assert wins(20.0) < 1e-3 / (1 + math.exp(20.0))


def test_our_draws_of_a_rare_token_are_right() -> None:
    """Stratified: the rare token's number from its top 2^-20 only, where it can win; 400,000 draws.

    The number of wins is binomial; five standard deviations are allowed. Rounded to float32
    the same draws fail.
    """
    draws, stratum = 400_000, 2.0**-20
    noise = RowNoise(11)
    likely = noise.gumbel((0,), draws)
    uniform = 1 - stratum * noise.uniform((1,), draws)
    logits = torch.tensor([0.0, -GAP]).double().expand(draws, -1)
    draw = Draw(temperature=1.0)
    ours = gumbel_max(logits, draw, torch.stack([likely, -torch.log(-torch.log(uniform))], 1))
    # Outside the stratum the likely token's number would have to be below -4: e^(-e^4) is nothing.
    expected = RARE / stratum * draws
    assert abs(float(ours.sum()) - expected) < 5 * math.sqrt(expected)
    rounded = gumbel_max(logits, draw, torch.stack([likely, gumbel32(uniform).double()], 1))
    assert abs(float(rounded.sum()) - expected) > 20 * math.sqrt(expected)


def test_uniform_numbers_have_53_bits() -> None:
    """So that the largest Gumbel number is 36.7; the lowest 24 bits are as random as the others."""
    whole = (RowNoise(3).uniform((5,), 1 << 16) * 2**53).long()
    for bit in range(24):
        ones = int(((whole >> bit) & 1).sum())
        assert abs(ones - (1 << 15)) < 6 * math.sqrt(1 << 14)


def independent(first: Tensor, second: Tensor, cells: int = 8) -> bool:
    """Chi-square of the table of two streams of uniform numbers."""
    table = torch.bincount((first * cells).long() * cells + (second * cells).long(), minlength=cells * cells)
    return bool(chi2_contingency(table.reshape(cells, cells).numpy()).pvalue > ALPHA)


def stream(*keys: tuple[int, ...], seed: int = 0) -> Tensor:
    """The first number of every key."""
    noise = RowNoise(seed)
    return torch.stack([noise.uniform(key, 3)[0] for key in keys])


def test_draws_of_different_positions_steps_purposes_and_seeds_are_independent() -> None:
    """Pairs of neighbours, 12,000 of each kind."""
    keys = [(place, step, 2) for place in range(400) for step in range(30)]
    mine = stream(*keys)
    assert independent(mine, mine.roll(7 * 30))
    assert independent(mine, stream(*((place + 1, step, 2) for place, step, _ in keys)))
    assert independent(mine, stream(*((place, step + 1, 2) for place, step, _ in keys)))
    assert independent(mine, stream(*((step, place + 30, 2) for place, step, _ in keys)))
    assert independent(mine, stream(*((place, step, 1) for place, step, _ in keys)))
    assert independent(mine, stream(*((place, step) for place, step, _ in keys)))
    assert independent(mine, stream(*keys, seed=1))
    assert not independent(mine, mine * 0.9 + 0.05 * mine.roll(1)), "the test sees dependence"


def test_numbers_of_one_key_are_independent() -> None:
    """Neighbours in a stream, and its two halves."""
    numbers = RowNoise(4).uniform((9, 1, 2), 20_000)
    assert independent(numbers[0::2], numbers[1::2])
    assert independent(numbers[:10_000], numbers[10_000:])
    seeds = [RowNoise(seed).uniform((3, 1, 2), 2)[1] for seed in range(10_000)]
    assert independent(torch.stack(seeds[:-1]), torch.stack(seeds[1:]))


def test_drawn_tokens_of_neighbouring_positions_and_steps_are_independent() -> None:
    """Through `predict`, 6,000 positions and then as many steps."""
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]]))
    noise = RowNoise(6)
    for keys in ([(place, 0, 2) for place in range(6000)], [(0, step, 2) for step in range(6000)]):
        tokens = [int(predict(logits, [Draw(1.0, gumbel=noise.gumbel(key, 4))]).token) for key in keys]
        table = torch.zeros(4, 4)
        for pair in pairwise(tokens):
            table[pair] += 1
        assert chi2_contingency(table.numpy()).pvalue > ALPHA
