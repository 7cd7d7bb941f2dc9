"""Draws in the tail, where float32 noise fails (arXiv 2409.02908), and draws of different keys."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy.stats import chi2_contingency
from torch import Tensor

from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import gumbel_max
from dllm_plugins.prediction import inverse
from dllm_plugins.prediction import predict

from .checks import ALPHA

GAP = 18.0  # log-probability by which the rare token trails the likely one
RARE = 1 / (1 + math.exp(GAP))


def gumbel32(uniform: Tensor) -> Tensor:
    """What a float32 sampler computes."""
    return -torch.log(-torch.log(uniform.float()))


@pytest.mark.slow
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
    likely = noise.gumbel(Key(Purpose.NEXT), draws)
    uniform = 1 - stratum * noise.uniform(Key(Purpose.NEXT, 1), draws)
    logits = torch.tensor([0.0, -GAP]).double().expand(draws, -1)
    draw = Draw(temperature=1.0)
    ours = gumbel_max(logits, draw, torch.stack([likely, -torch.log(-torch.log(uniform))], 1))
    # Outside the stratum the likely token's number would have to be below -4: e^(-e^4) is nothing.
    expected = RARE / stratum * draws
    assert abs(float(ours.sum()) - expected) < 5 * math.sqrt(expected)
    rounded = gumbel_max(logits, draw, torch.stack([likely, gumbel32(uniform).double()], 1))
    assert abs(float(rounded.sum()) - expected) > 20 * math.sqrt(expected)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_number_draws_a_rare_token_as_often_as_it_should_be(position: int) -> None:
    """The same, wherever the rare token stands among the likely ones: the numbers that draw it span its probability."""
    logits = torch.zeros(3, dtype=torch.float64).index_fill_(0, torch.tensor(position), math.log(2) - GAP)
    border = torch.softmax(logits, -1)[:position].sum()
    numbers = border + RARE * torch.linspace(-1, 2, 3001, dtype=torch.float64)
    numbers = numbers[(numbers > 0) & (numbers < 1)]
    drawn = inverse(logits.expand(len(numbers), -1), Draw(temperature=1.0), numbers)
    inside = (numbers > border) & (numbers < border + RARE)
    assert int(inside.sum()) >= 998
    near = ((numbers - border).abs() < 1e-15) | ((numbers - border - RARE).abs() < 1e-15)
    assert torch.equal((drawn == position)[~near], inside[~near])


def test_uniform_numbers_have_53_bits() -> None:
    """So that the largest Gumbel number is 36.7; the lowest 24 bits are as random as the others."""
    whole = (RowNoise(3).uniform(Key(Purpose.PLUGIN), 1 << 16) * 2**53).long()
    for bit in range(24):
        ones = int(((whole >> bit) & 1).sum())
        assert abs(ones - (1 << 15)) < 6 * math.sqrt(1 << 14)


def independent(first: Tensor, second: Tensor, cells: int = 8) -> bool:
    """Chi-square of the table of two streams of uniform numbers."""
    table = torch.bincount((first * cells).long() * cells + (second * cells).long(), minlength=cells * cells)
    return bool(chi2_contingency(table.reshape(cells, cells).numpy()).pvalue > ALPHA)


def stream(*keys: Key, seed: int = 0) -> Tensor:
    """The first number of every key."""
    noise = RowNoise(seed)
    return torch.stack([noise.uniform(key, 3)[0] for key in keys])


@pytest.mark.slow
def test_draws_of_different_positions_steps_purposes_and_seeds_are_independent() -> None:
    """Pairs of neighbours, 3,000 of each kind."""
    pairs = [(position, step) for position in range(100) for step in range(30)]

    def keyed(purpose: Purpose, change: Callable[[int, int], tuple[int, ...]] = lambda p, s: (p, s)) -> list[Key]:
        return [Key(purpose, *change(position, step)) for position, step in pairs]

    mine = stream(*keyed(Purpose.CANVAS))
    assert independent(mine, mine.roll(7 * 30))
    for change in (
        lambda position, step: (position + 1, step),
        lambda position, step: (position, step + 1),
        lambda position, step: (step, position + 30),
        lambda position, step: (position, step, 1),
        lambda position, step: (position, 0, step + 30),
        lambda position, step: (0, position, step + 1),
    ):
        assert independent(mine, stream(*keyed(Purpose.CANVAS, change)))
    for purpose in set(Purpose) - {Purpose.CANVAS}:
        assert independent(mine, stream(*keyed(purpose))), purpose.name
    assert independent(mine, stream(*keyed(Purpose.CANVAS), seed=1))
    assert not independent(mine, mine * 0.9 + 0.05 * mine.roll(1)), "the test sees dependence"


def test_numbers_of_one_key_are_independent() -> None:
    """Neighbours in a stream, and its two halves."""
    numbers = RowNoise(4).uniform(Key(Purpose.PLUGIN, 9, 1, 2), 20_000)
    assert independent(numbers[0::2], numbers[1::2])
    assert independent(numbers[:10_000], numbers[10_000:])
    seeds = [RowNoise(seed).uniform(Key(Purpose.PLUGIN, 3, 1, 2), 2)[1] for seed in range(10_000)]
    assert independent(torch.stack(seeds[:-1]), torch.stack(seeds[1:]))


def test_drawn_tokens_of_neighbouring_positions_and_steps_are_independent() -> None:
    """Through `predict`, 3,000 positions by Gumbel numbers, positions and then steps by one number each."""
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.2, 0.1]]))
    noise = RowNoise(6)
    kinds: tuple[Callable[[int], Draw], ...] = (
        lambda number: Draw(1.0, gumbel=noise.gumbel(Key(Purpose.NEXT, number), 4)),
        lambda number: Draw(1.0, uniform=float(noise.uniform(Key(Purpose.CANVAS, number), 1))),
        lambda number: Draw(1.0, uniform=float(noise.uniform(Key(Purpose.CANVAS, 0, number), 1))),
    )
    for kind in kinds:
        tokens = [int(predict(logits, [kind(number)]).token) for number in range(3000)]
        table = torch.zeros(4, 4)
        for pair in pairwise(tokens):
            table[pair] += 1
        assert chi2_contingency(table.numpy()).pvalue > ALPHA
