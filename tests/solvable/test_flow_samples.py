"""The samplers' programs draw what their chains say, and what they should.

Twice: the programs' answers are those of samplers written for many texts at once (coupled.py),
token for token from the same noise, and those samplers' answers are counted. If none of 2,048
answers differs, a program that differs in 0.0023 of them would have been seen with power 0.99;
`samples_needed` gives the counts with which the chi-square test rejects what is left of an
error of 0.02 in total variation with power 0.99 at alpha 1e-6, whatever its shape. A share of
committed positions is one probability; its binomial test has that power with
(4.9 + 2.33)^2 / 4 / 0.02^2 positions, normal quantiles of alpha / 2 and 0.99. Seeds are fixed. A
canvas holds 32 texts, which must not share draws.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.modes.flow import FlowSettings
from dllm_plugins.modes.remdm import RemdmSettings
from dllm_plugins.modes.remdm import steps as remdm_steps
from dllm_plugins.noise import Purpose
from dllm_plugins.processes.flow import Flow
from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.chain import sequence_number
from dllm_plugins.training.solvable import solvable_model

from .checks import DISTANCE
from .checks import assert_distribution
from .checks import p_value
from .checks import samples_needed
from .coupled import even_texts
from .coupled import fresh
from .coupled import masked_texts
from .coupled import of_rows
from .coupled import uniform_texts
from .coupled import unseen
from .flow_kernels import PROMPT
from .flow_kernels import Runner
from .flow_kernels import masked_chain
from .flow_kernels import speaks_of
from .flow_kernels import uniform_chain

CHAIN, LENGTH = Chain.random(3, 2, seed=1, evenness=0.2), 3
CELLS = CHAIN.vocabulary**LENGTH
#: Answers that are compared, and how many of them share a canvas.
ALIKE, COPIES = 2048, 32
ENOUGH = samples_needed(CELLS, total_variation=DISTANCE - unseen(ALIKE))
SEEDS = range(ALIKE // COPIES)


def counted(answers: Tensor) -> Tensor:
    """How often each of them [N, L] came; int64 [V^L]."""
    return torch.bincount(sequence_number(answers, CHAIN.vocabulary), minlength=CELLS)


@pytest.mark.slow
def test_one_position_at_a_time_is_exact() -> None:
    """As many even steps as positions on a linear schedule commit one each, in random order; the whole engine."""
    config = SamplingConfig(
        mode="flow", max_new_tokens=LENGTH, temperature=1.0, steps=LENGTH, preset_options={"few_steps": True}
    )
    model, alike = solvable_model(CHAIN, cache="none"), 700
    requests = [Request((PROMPT,), config.with_options(seed=seed), stop_ids=frozenset()) for seed in range(alike)]
    expected = even_texts(CHAIN, alike, LENGTH, of_rows(range(alike), 1))
    assert [list(found.tokens) for found in model.engine().generate(requests)] == expected.tolist()
    samples = samples_needed(CELLS, total_variation=DISTANCE - unseen(alike))
    counts = counted(even_texts(CHAIN, samples, LENGTH, fresh(0)))
    assert_distribution(counts, CHAIN.distribution(LENGTH, (PROMPT,)))


MASKED: list[tuple[str, int, dict[str, Any], Flow | RemdmSettings]] = [
    ("flow", 2, {}, Flow()),
    ("flow", 3, {"scheduler": "cosine", "corrector": 3.0}, Flow(Scheduler("cosine"), 3.0)),
    ("remdm", 3, {"variant": "rescale", "eta": 0.6}, RemdmSettings.model_validate({"variant": "rescale", "eta": 0.6})),
]


@pytest.mark.parametrize(("mode", "count", "options", "source"), MASKED, ids=["ancestral", "corrector", "remdm"])
def test_from_masks_answers_follow_the_chain(
    mode: str, count: int, options: dict[str, Any], source: Flow | RemdmSettings
) -> None:
    """Its errors included, which few steps make large enough to see."""
    runner = Runner(mode, speaks_of(CHAIN), CHAIN.vocabulary, LENGTH, steps=count, copies=COPIES, **options)
    found = source.steps(count) if isinstance(source, Flow) else remdm_steps(source, count)
    steps = [(step.commit, step.reopen) for step in found]
    moves = Purpose.FLOW_MOVES if mode == "flow" else Purpose.REMDM_MOVES
    alike = masked_texts(CHAIN, ALIKE, LENGTH, steps, of_rows(SEEDS, 1), moves)
    assert torch.equal(runner.texts(SEEDS), alike)
    counts = counted(masked_texts(CHAIN, ENOUGH, LENGTH, steps, fresh(0), moves))
    assert_distribution(counts, masked_chain(CHAIN, LENGTH, steps))
    assert p_value(counts, CHAIN.distribution(LENGTH, (PROMPT,))) < 1e-6


@pytest.mark.parametrize("options", [{}, {"corrector": 3.0}])
def test_from_random_tokens_answers_follow_the_chain(options: dict[str, float]) -> None:
    """The posterior of every step is the one at its level."""
    flow = Flow(corrector=options.get("corrector", 0.0))
    levels = tuple(flow.scheduler.at(step.begin) for step in flow.steps(3))
    speaks = speaks_of(CHAIN, levels)
    runner = Runner("flow_uniform", speaks, CHAIN.vocabulary, LENGTH, steps=3, copies=COPIES, **options)
    jumps = [(level, step.jump, step.forward) for level, step in zip(levels, flow.steps(3), strict=True)]
    assert torch.equal(runner.texts(SEEDS), uniform_texts(CHAIN, ALIKE, LENGTH, jumps, of_rows(SEEDS, 1)))
    counts = counted(uniform_texts(CHAIN, ENOUGH, LENGTH, jumps, fresh(0)))
    steps = [(level, jump * forward, jump * (1 - forward)) for level, jump, forward in jumps]
    assert_distribution(counts, uniform_chain(CHAIN, LENGTH, steps))
    assert p_value(counts, CHAIN.distribution(LENGTH, (PROMPT,))) < 1e-6


WIDTH = 24
POSITIONS = int((4.9 + 2.33) ** 2 / 4 / 0.02**2) + 1


def clean_runner(mode: str, width: int = WIDTH, **options: Any) -> Runner:
    """Of a text that is known: every position is 1, and the model is sure of it."""
    sure = torch.tensor([[-torch.inf, 0.0, -torch.inf]], dtype=torch.float64).expand(width, -1)
    return Runner(mode, lambda _answer, _passes: sure, 2, width, steps=6, temperature=0.0, **options)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("flow", {}),
        ("flow", {"few_steps": True}),
        ("flow", {"corrector": 4.0}),
        ("flow", {"corrector": 4.0, "few_steps": True}),
        ("flow", {"corrector": 2.0, "solver": "euler", "scheduler": "cosine"}),
        ("remdm", {"eta": 0.4}),
        ("remdm", {"variant": "rescale", "eta": 0.7, "scheduler": "polynomial"}),
        ("remdm", {"variant": "loop", "eta": 0.1}),
    ],
)
def test_how_much_is_committed_of_a_known_text(mode: str, options: dict[str, Any]) -> None:
    """Before every step the share that the probabilities say; positions are alike and independent, or more even."""
    width = 32 * WIDTH
    runner = clean_runner(mode, width, **options)
    purpose = Purpose.FLOW_MOVES if mode == "flow" else Purpose.REMDM_MOVES
    steps: list[tuple[float, float]]
    if mode == "flow":
        settings = FlowSettings.model_validate(options)
        steps = [(step.commit, step.reopen) for step in settings.flow().steps(6)]
    else:
        steps = [(step.commit, step.reopen) for step in remdm_steps(RemdmSettings.model_validate(options), 6)]
    samples = POSITIONS // width + 1
    found = runner.shares(samples, purpose) / (samples * width)
    assert len(found) == len(steps)
    share = 0.0
    for (commit, reopen), measured in zip(steps, found.tolist(), strict=True):
        allowed = 4.9 * (share * (1 - share) / (samples * width)) ** 0.5
        assert abs(measured - share) <= allowed + 1e-12
        share = share * (1 - reopen) + (1 - share) * commit
    assert share == 1


def test_even_steps_are_even() -> None:
    """With few_steps each commits the expected number of positions or one beside it, and never more by chance."""
    seen: dict[bool, set[int]] = {}
    for evenly in (True, False):
        runner = clean_runner("flow", few_steps=evenly)
        seen[evenly] = {int(runner.shares(1, Purpose.FLOW_MOVES, seed)[3]) for seed in range(60)}
    assert seen[True] == {12}
    assert len(seen[False]) > 5


def test_remdm_by_confidence_takes_back_what_was_unsure() -> None:
    """Positions it drew at even odds come back more often than those it was sure of; fewer than alpha are committed."""
    odds = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64).log().repeat(WIDTH // 2, 1)
    runner = Runner("remdm", lambda _answer, _passes: odds, 2, WIDTH, steps=6, variant="conf")
    histories = torch.tensor([runner.history(seed, Purpose.REMDM_MOVES) for seed in range(400)])
    committed = histories != runner.size
    share = committed.double().mean((0, 2))
    assert share[1] == pytest.approx(1 / 6, abs=0.02)
    assert all(share[step] < step / 6 for step in (2, 3, 4, 5))
    reopened = (committed[:, :-1] & ~committed[:, 1:]).sum((0, 1))
    assert float(reopened[::2].sum() / reopened[1::2].sum()) == pytest.approx(math.exp(0.5), rel=0.2)
