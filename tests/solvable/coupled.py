"""Flow samplers written again for many texts at once, from given uniform numbers.

What they draw can be counted by the hundred thousand. From the numbers that a program draws
for itself they yield its answers, token for token; so whatever is shown of their answers'
distribution holds for the program's, but for the share of answers in which the two could
differ unseen (:func:`unseen`).
"""

import math
from collections.abc import Callable
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.training.chain import Chain

from .flow_kernels import said

#: Uniform numbers, float64 of a shape, for a purpose: of every text, step and position, whatever comes first.
Numbers = Callable[[Purpose, tuple[int, ...]], Tensor]


def unseen(answers: int, *, power: float = 0.99) -> float:
    """The share of answers in which two samplers may differ of which this many were all the same."""
    return 1.0 - float((1 - power) ** (1 / answers))


def fresh(seed: int) -> Numbers:
    """New ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return lambda _purpose, shape: torch.rand(shape, dtype=torch.float64, generator=generator)


def of_rows(seeds: Sequence[int], begin: int) -> Numbers:
    """Those that rows of these seeds draw, whose canvases begin at `begin` and hold as many texts as fit."""

    def numbers(purpose: Purpose, shape: tuple[int, ...]) -> Tensor:
        steps = shape[1] if len(shape) == 3 else 1
        width = math.prod(shape) // steps // len(seeds)
        found = [_canvas(RowNoise(seed), purpose, begin, width, step) for seed in seeds for step in range(steps)]
        return torch.stack(found).reshape(len(seeds), steps, -1, shape[-1]).transpose(1, 2).reshape(shape)

    return numbers


def _canvas(noise: RowNoise, purpose: Purpose, begin: int, width: int, step: int) -> Tensor:
    if purpose == Purpose.CANVAS:
        return torch.cat([noise.uniform(Key(purpose, begin + place, step), 1) for place in range(width)])
    return noise.uniform(Key(purpose, begin, step), width)


def inverted(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """The id each number [...] draws from probabilities [..., V]."""
    reached = probabilities.cumsum(-1)[..., :-1]
    return (reached < numbers[..., None]).sum(-1)


def masked_texts(
    chain: Chain,
    count: int,
    length: int,
    steps: Sequence[tuple[float, float]],
    numbers: Numbers,
    moves: Purpose = Purpose.FLOW_MOVES,
) -> Tensor:
    """Answers [count, length] from masks, with these probabilities of committing and reopening."""
    luck = numbers(moves, (count, len(steps), length))
    draws = numbers(Purpose.CANVAS, (count, len(steps), length))
    now, mask = torch.full((count, length), chain.vocabulary), chain.vocabulary
    for step, (commit, reopen) in enumerate(steps):
        is_open = now == mask
        moving = luck[:, step] < torch.where(is_open, commit, reopen)
        now = now.where(~moving, inverted(said(chain, now), draws[:, step]).where(is_open, mask))
    return now


def uniform_texts(
    chain: Chain, count: int, length: int, steps: Sequence[tuple[float, float, float]], numbers: Numbers
) -> Tensor:
    """The same from random tokens: the level of a step, and the probabilities of jumping at all and, then, forwards."""
    shape = (count, len(steps), length)
    luck, sides = numbers(Purpose.UNIFORM_MOVES, shape), numbers(Purpose.UNIFORM_SIDES, shape)
    back, draws = numbers(Purpose.UNIFORM_BACK, shape), numbers(Purpose.CANVAS, shape)
    now = (numbers(Purpose.UNIFORM_INITIAL, (count, length)) * chain.vocabulary).long()
    for step, (level, jump, forward) in enumerate(steps):
        clean = inverted(said(chain, now, level), draws[:, step])
        noise = (back[:, step] * chain.vocabulary).long()
        now = now.where(luck[:, step] >= jump, clean.where(sides[:, step] < forward, noise))
    return now


def even_texts(chain: Chain, count: int, length: int, numbers: Numbers) -> Tensor:
    """From masks, one position a step: open ones share the way from 0 to 1 in the order of their luck, and one number
    more says how far from its end the one is that is committed.
    """
    luck = numbers(Purpose.FLOW_MOVES, (count, length, length + 1))
    draws = numbers(Purpose.CANVAS, (count, length, length))
    now = torch.full((count, length), chain.vocabulary)
    for step in range(length):
        order = luck[:, step, :-1].where(now == chain.vocabulary, torch.inf).argsort(-1)
        place = ((1 - luck[:, step, -1]) * (length - step)).ceil().long() - 1
        chosen = order.gather(1, place[:, None])
        now = now.scatter(1, chosen, inverted(said(chain, now), draws[:, step]).gather(1, chosen))
    return now
