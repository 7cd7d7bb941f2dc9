"""Two ways to know what a flow sampler does: its exact chain, enumerated, and its program, run many times.

The chains are written from the equations, over all texts of L tokens; the programs are the
samplers' own, run without the engine on canvases that hold many texts, since an answer then takes
a fifth of a millisecond.
"""

from collections.abc import Callable
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Pass
from dllm_plugins.decoding.program import of_logits
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.noise import Key
from dllm_plugins.noise import RowNoise
from dllm_plugins.training.chain import Chain

#: What stands before every answer.
PROMPT = 0


def texts(symbols: int, length: int) -> Tensor:
    """All of them, int64 [symbols^length, length], in order."""
    return torch.cartesian_prod(*[torch.arange(symbols)] * length).reshape(-1, length)


def said(chain: Chain, answers: Tensor, level: float | None = None) -> Tensor:
    """Posterior [N, L, V] of answers [N, L] behind the prompt; ids of V and above are open.

    :param level: uniform noise: how much of an answer is clean.
    """
    whole = torch.nn.functional.pad(answers, (1, 0), value=PROMPT)
    evidence = chain.evidence(whole)
    if level is not None:
        noisy = chain.noisy_evidence(whole, torch.full((len(whole),), level, dtype=torch.float64))
        evidence = torch.cat([evidence[:, :1], noisy[:, 1:]], 1)
    return chain.posterior(evidence)[:, 1:]


def together(each: Tensor) -> Tensor:
    """Probability [N, X^L] of every text, if positions [N, L, X] turn out independently."""
    found = each[:, 0]
    for position in range(1, each.shape[1]):
        found = (found[:, :, None] * each[:, None, position]).flatten(1)
    return found


def masked_step(chain: Chain, length: int, commit: float, reopen: float) -> Tensor:
    """Transitions [S, S] of all texts with masks in one step."""
    states = texts(chain.vocabulary + 1, length)
    open_ = (states == chain.vocabulary)[..., None]
    stay = torch.nn.functional.one_hot(states, chain.vocabulary + 1).double()
    mask = torch.nn.functional.one_hot(torch.tensor(chain.vocabulary), chain.vocabulary + 1).double()
    drawn = torch.nn.functional.pad(said(chain, states), (0, 1))
    return together(torch.where(open_, commit * drawn + (1 - commit) * stay, reopen * mask + (1 - reopen) * stay))


def masked_chain(chain: Chain, length: int, steps: Iterable[tuple[float, float]]) -> Tensor:
    """Distribution [V^L] of answers, from masks, with these probabilities of committing and reopening."""
    states = texts(chain.vocabulary + 1, length)
    now = torch.zeros(len(states), dtype=torch.float64)
    now[-1] = 1.0
    for commit, reopen in steps:
        now = now @ masked_step(chain, length, commit, reopen)
    return now[(states < chain.vocabulary).all(1)]


def uniform_chain(chain: Chain, length: int, steps: Iterable[tuple[float, float, float]]) -> Tensor:
    """The same from random tokens: the level of a step, and the probabilities of jumping forwards and back."""
    states = texts(chain.vocabulary, length)
    now = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    stay = torch.nn.functional.one_hot(states, chain.vocabulary).double()
    for level, forward, back in steps:
        drawn = said(chain, states, level)
        now = now @ together(forward * drawn + back / chain.vocabulary + (1 - forward - back) * stay)
    return now


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float((one - other).abs().sum() / 2)


class Watched(RowNoise):
    """Noise that calls back before the numbers of each step are drawn."""

    def __init__(self, seed: int, purpose: int = -1, watch: Callable[[], None] = lambda: None) -> None:
        super().__init__(seed)
        self.purpose, self.watch = purpose, watch

    def uniform(self, key: Key, count: int) -> Tensor:
        if key.purpose == self.purpose:
            self.watch()
        return super().uniform(key, count)


#: Log posteriors [L, V] of an answer with open positions, in the pass of a number.
Speaks = Callable[[tuple[int, ...], int], Tensor]


def speaks_of(chain: Chain, levels: tuple[float, ...] | None = None) -> Speaks:
    """What the chain says, each answer once; the mask, where there is one, has no probability."""

    @cache
    def speaks(answer: tuple[int, ...], passes: int) -> Tensor:
        level = None if levels is None else levels[passes]
        found = torch.log(said(chain, torch.tensor([answer]), level)[0])
        return found if levels is not None else torch.nn.functional.pad(found, (0, 1), value=-torch.inf)

    return speaks if levels is not None else lambda answer, _passes: speaks(answer, 0)


class Runner:
    """A sampler's program on a vocabulary of `size` tokens, run again and again.

    :param length: of a text, of which a canvas holds `copies`. The model sees each of them alone, and each
        position has its own draws, so they are as many answers, as long as steps are not even.
    """

    def __init__(
        self,
        mode: str,
        speaks: Speaks,
        size: int,
        length: int,
        *,
        steps: int,
        copies: int = 1,
        temperature: float = 1.0,
        **options: Any,
    ) -> None:
        self.sampler, self.size, self.text, self.length = plugins.modes()[mode], size, length, length * copies
        self.speaks: Speaks = lambda answer, passes: torch.cat(
            [speaks(answer[first : first + length], passes) for first in range(0, self.length, length)]
        )
        uniform = mode == "flow_uniform"
        self.spec = ModelSpec(
            "kernel",
            size + (not uniform),
            size,
            2 + self.length,
            frozenset(),
            self.length,
            0,
            (mode,),
            False,
            "none",
            "row-invariant",
        )
        self.config = SamplingConfig(
            max_new_tokens=self.length,
            temperature=temperature,
            steps=steps,
            block_length=self.length,
            preset_options=options,
        )
        self.settings = self.sampler.read(self.config)

    def answer(self, noise: RowNoise, canvas: Canvas | None = None) -> list[int]:
        """One answer."""
        canvas = canvas or self.canvas(noise)
        program, passes = self.sampler.start(canvas, self.settings, self.spec), 0
        wanted = next(program)
        while True:
            assert isinstance(wanted, Pass)
            segment = wanted.segments[-1]
            answer = tuple(segment.tokens[-self.length :])
            positions = torch.tensor([segment.positions[index] - 1 for index in segment.wanted])
            try:
                wanted = program.send([of_logits(self.speaks(answer, passes)[positions])])
            except StopIteration:
                return canvas.row.generated
            passes += 1

    def canvas(self, noise: RowNoise) -> Canvas:
        """All open."""
        row = Row(0, 0, [PROMPT], 1, self.config, noise, self.spec.vocabulary, frozenset(), self.length)
        return Canvas(row, self.spec)

    def texts(self, seeds: Iterable[int]) -> Tensor:
        """Answers, as many a seed as a canvas holds; int64 [N, L]."""
        return torch.tensor([self.answer(RowNoise(seed)) for seed in seeds]).reshape(-1, self.text)

    def history(self, seed: int, purpose: int) -> list[list[int]]:
        """What the answer holds before each step, `size` where open.

        :param purpose: of the noise that every step begins with.
        """
        found: list[list[int]] = []
        noise = Watched(seed, purpose, lambda: found.append(canvas.tokens[1:]))
        canvas = self.canvas(noise)
        self.answer(noise, canvas)
        return found

    def shares(self, samples: int, purpose: int, seed: int = 0) -> Tensor:
        """How many positions are committed before each step, of `samples` answers; int64 [steps]."""
        histories = torch.tensor([self.history(own, purpose) for own in range(seed, seed + samples)])
        return (histories != self.size).sum((0, 2))
