"""Samplers on the solvable model: what is exact is shown to be, and what is not is measured and agrees.

Three ways to the same numbers: the engine; the same pure functions on many canvases at once, which
answer as the engine does from its noise, drawn answers, enough to see a total variation of 0.02
(checks.py); and the distribution a rule induces, followed exactly.
"""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.induced import Trial
from dllm_plugins.training.induced import induced
from dllm_plugins.training.induced import sampled
from dllm_plugins.training.rows import Crowd
from dllm_plugins.training.solvable import solvable_model

from .checks import ALPHA
from .checks import DISTANCE
from .checks import assert_distribution
from .checks import p_value
from .checks import samples_needed
from .checks import sequence_distribution
from .coupled import unseen

PROMPT = (0,)
CHAIN = Chain.random(3, 3, 0, evenness=0.3)
RULES = plugins.rules()


def config(rule: str, length: int, **options: object) -> SamplingConfig:
    """One block of this many positions at temperature 1."""
    common = {"mode": "llada", "rule": rule, "temperature": 1.0, "max_new_tokens": length, "block_length": length}
    return SamplingConfig(**common | options)


def trial(rule: str, length: int, **options: object) -> Trial:
    """The same for the pure functions."""
    return Trial(CHAIN, RULES[rule], config(rule, length, **options), length, PROMPT)


@pytest.mark.slow
def test_one_position_a_pass_in_random_order_is_exact() -> None:
    """Chi-square over all 81 answers of 4 tokens; an error of 0.02 would be seen with power 0.99 at 1e-6."""
    truth = CHAIN.distribution(4, PROMPT)
    counts, passes = sampled(trial("random", 4, steps=4), samples_needed(len(truth)), seed=100)
    assert passes == 4
    assert_distribution(counts, truth)


@pytest.mark.slow
def test_two_positions_a_pass_are_not() -> None:
    """The same test, the same number of samples: the factorised draw is seen."""
    truth = CHAIN.distribution(4, PROMPT)
    counts, passes = sampled(trial("random", 4, steps=2), samples_needed(len(truth)), seed=200)
    assert passes == 2
    assert p_value(counts, truth) < 1e-12
    assert_distribution(counts, induced(trial("random", 4, steps=2), averaged=200_000).probabilities)


@pytest.mark.parametrize("seed", range(3))
def test_random_order_is_exact_to_the_last_digits(seed: int) -> None:
    """No sampling: the induced distribution itself, other chains, 4 tokens and states."""
    chain = Chain.random(4, 4, seed, evenness=0.4)
    found = induced(Trial(chain, RULES["random"], config("random", 5, steps=5), 5, PROMPT), averaged=1)
    assert found.distance(chain.distribution(5, PROMPT)) < 1e-12
    assert found.passes == pytest.approx(5)


def test_the_most_probable_draw_first_is_biased() -> None:
    """One position a pass is not enough. A rule that looks at the drawn tokens' probabilities
    keeps likely draws and draws unlikely ones again: far from the chain, though the model is
    perfect. Shown the largest probability in place of the drawn token's, it is exact.
    """
    truth, surest = CHAIN.distribution(6, PROMPT), trial("quota", 6, steps=6)
    assert induced(surest).distance(truth) > 0.1
    blind = Trial(surest.chain, surest.rule, surest.config, 6, PROMPT, blind=True)
    assert induced(blind).distance(truth) < 1e-12


@dataclass(frozen=True)
class Between(Trial):
    """With tokens behind the answer, too."""

    suffix: tuple[int, ...] = ()

    def logits(self, canvas: Tensor) -> Tensor:
        """See :class:`~dllm_plugins.training.induced.Trial`."""
        behind = torch.tensor(self.suffix, dtype=torch.int64).expand(len(canvas), -1)
        return super().logits(torch.cat([canvas, behind], 1))[:, : self.length]


def decoded_alike(asked: Trial, seeds: range, suffix: tuple[int, ...] = ()) -> bool:
    """Whether the engine's answers are those of the pure functions with the engine's own noise."""
    requests = [
        Request(asked.prompt, asked.config.with_options(seed=seed), stop_ids=frozenset(), suffix=suffix)
        for seed in seeds
    ]
    finishes = solvable_model(CHAIN).engine().generate(requests)
    return [list(finish.tokens) for finish in finishes] == [answer(asked, RowNoise(seed)) for seed in seeds]


def answer(asked: Trial, noise: RowNoise) -> list[int]:
    """Pass by pass, as the engine keys its draws."""
    rows, step = asked.start(1), 0
    while bool((rows.canvas == CHAIN.vocabulary).any()):
        logits, rows = asked.rescored(rows, step)
        draws = [
            Draw(1.0, uniform=float(noise.uniform(Key(Purpose.CANVAS, len(asked.prompt) + position, step), 1)))
            for position in range(asked.length)
        ]
        rows = asked.commit(rows, logits, predict(logits[0], draws).token[None], step, (noise,))
        step += 1
    found: list[int] = rows.canvas[0].tolist()
    return found


#: None of so many answers would differ with probability 0.01 if one out of 65 did.
ALIKE = range(300)
ENOUGH = samples_needed(27, total_variation=2 * DISTANCE - unseen(len(ALIKE)))


def test_the_engine_draws_from_the_chain() -> None:
    """The whole engine, answers of 3 tokens: those of functions that sample the chain. An error of 0.04 is seen."""
    asked, truth = trial("random", 3, steps=3), CHAIN.distribution(3, PROMPT)
    assert decoded_alike(asked, ALIKE)
    assert_distribution(sampled(asked, ENOUGH, seed=300)[0], truth)
    assert_distribution(sequence_distribution(solvable_model(CHAIN), asked.config, 1000, prompt=PROMPT), truth)


def test_a_prompt_and_a_suffix_condition_the_answer() -> None:
    """What is drawn is the exact conditional, which is not the distribution behind another prompt."""
    prompt, suffix = (1, 2), (2, 0)
    asked = Between(CHAIN, RULES["random"], config("random", 3, steps=3), 3, prompt, suffix=suffix)
    assert decoded_alike(asked, ALIKE, suffix)
    counts, _ = sampled(asked, ENOUGH, seed=400)
    assert_distribution(counts, CHAIN.distribution(3, prompt, suffix))
    for other in (CHAIN.distribution(3, prompt), CHAIN.distribution(3, (0, 0), suffix)):
        assert p_value(counts, other) < ALPHA


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("length", [5])
def test_engine_and_pure_functions_decode_alike(rule: str, length: int) -> None:
    """Every rule, with the engine's own noise: the same answers from the same seeds."""
    assert decoded_alike(trial(rule, length), range(24))


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_samples_what_it_induces(rule: str) -> None:
    """20,000 answers of 3 tokens drawn against the distribution followed exactly, and it sums to 1."""
    asked = trial(rule, 3)
    found = induced(asked, averaged=200_000)
    assert float(found.probabilities.sum()) == pytest.approx(1, abs=1e-9)
    counts, passes = sampled(asked, 20_000, seed=7)
    assert_distribution(counts, found.probabilities)
    assert passes == pytest.approx(found.passes, abs=0.05)


def test_many_streams_of_a_crowd_are_independent_of_one_another() -> None:
    """A rule that draws sees new noise in each row, and the same in the same stream."""
    crowd = Crowd(3, [0, 0, 1], 2)
    first, again, other = (member.uniform(Key(Purpose.PLUGIN, 1, 2, 3), 4) for member in crowd.rows)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert crowd.drawn


def test_the_bias_by_hand() -> None:
    """Two independent positions, (0.9, 0.1) and (0.6, 0.4), the most probable draw first.

    A rare draw of the first position, 0.1, loses against either draw of the second, 0.6 or 0.4,
    and is drawn again: it survives with probability 0.1 * 0.1.
    """
    row = torch.tensor([[0.9, 0.1], [0.6, 0.4]], dtype=torch.float64)
    on = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    chain = Chain(torch.tensor([1.0, 0.0], dtype=torch.float64), on, row)
    asked = Trial(chain, RULES["quota"], config("quota", 2, steps=2), 2, prompt=())
    assert float(induced(asked).probabilities[2:].sum()) == pytest.approx(0.01)
    counts, _ = sampled(asked, 20_000)
    assert_distribution(counts, induced(asked).probabilities)
