"""Flow matching's chains on the solvable model, enumerated: no samples, so no error is too small to see."""

import math
from itertools import pairwise

import pytest
import torch

from dllm_plugins.modes.remdm import RemdmSettings
from dllm_plugins.modes.remdm import RemdmStep
from dllm_plugins.modes.remdm import steps as remdm_steps
from dllm_plugins.processes.flow import Flow
from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.processes.flow import SchedulerName
from dllm_plugins.processes.flow import SolverName
from dllm_plugins.training.chain import Chain

from .flow_kernels import PROMPT
from .flow_kernels import distance
from .flow_kernels import masked_chain
from .flow_kernels import masked_step
from .flow_kernels import said
from .flow_kernels import texts
from .flow_kernels import together
from .flow_kernels import uniform_chain

LENGTH = 3
CHAIN = Chain.random(3, 3, seed=1, evenness=0.2)
TRUTH = CHAIN.distribution(LENGTH, [PROMPT])
NAMES: list[SchedulerName] = ["linear", "polynomial", "cosine"]


def masked(flow: Flow, count: int) -> float:
    """How far its answers are from the truth."""
    steps = [(step.commit, step.reopen) for step in flow.steps(count)]
    return distance(masked_chain(CHAIN, LENGTH, steps), TRUTH)


def uniform(flow: Flow, count: int) -> float:
    """The same from random tokens."""
    steps = [
        (flow.scheduler.at(step.begin), step.jump * step.forward, step.jump * (1 - step.forward))
        for step in flow.steps(count)
    ]
    return distance(uniform_chain(CHAIN, LENGTH, steps), TRUTH)


def ancestral_step(kept: float, after: float) -> torch.Tensor:
    """Masked diffusion's q(x_s | x_t) as MDLM writes it: unnormalised weights of every symbol, then a draw.

    :param kept: the share of clean tokens at time t, and `after` at the next one, s.
    """
    states = texts(CHAIN.vocabulary + 1, LENGTH)
    weights = torch.nn.functional.pad(said(CHAIN, states) * ((1 - kept) - (1 - after)), (0, 1))
    weights[..., -1] = 1 - after
    copied = torch.nn.functional.one_hot(states, CHAIN.vocabulary + 1).double()
    weights = weights.where((states == CHAIN.vocabulary)[..., None], copied)
    return together(weights / weights.sum(-1, keepdim=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_without_corrector_it_is_ancestral_sampling(name: SchedulerName, count: int) -> None:
    """Every step has the same transitions."""
    flow = Flow(Scheduler(name))
    for number, step in enumerate(flow.steps(count)):
        time = [number / count, (number + 1) / count]
        kept, after = (
            {"linear": at, "polynomial": at**3, "cosine": 1 - math.cos(math.pi * at / 2)}[name] for at in time
        )
        expected = ancestral_step(kept, after)
        assert torch.allclose(masked_step(CHAIN, LENGTH, step.commit, step.reopen), expected, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_from_masks_the_error_falls_as_one_over_steps(name: SchedulerName) -> None:
    """What remains is that positions committed in one step do not know of one another."""
    errors = [masked(Flow(Scheduler(name)), count) for count in (8, 16, 32, 64, 128)]
    assert errors[0] > 0.01
    for one, other in pairwise(errors[1:]):
        assert one / other == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_from_random_tokens_the_error_falls_as_one_over_steps(name: SchedulerName) -> None:
    """With the posterior at the level kappa of each step."""
    errors = [uniform(Flow(Scheduler(name)), count) for count in (16, 32, 64, 128, 256)]
    assert errors[0] > 0.005
    for one, other in pairwise(errors[1:]):
        assert one / other == pytest.approx(2, abs=0.15)


def test_a_posterior_at_another_level_does_not_do() -> None:
    """The error stays, however many steps: this is how the test above can fail."""
    flow = Flow()
    for count in (64, 256):
        steps = [(0.5, step.jump, 0.0) for step in flow.steps(count)]
        assert distance(uniform_chain(CHAIN, LENGTH, steps), TRUTH) > 0.02


@pytest.mark.parametrize("power", [0.25, 1.0])
def test_with_a_corrector_the_error_falls_too(power: float) -> None:
    """To nothing, from either source. It is no smaller than without: a perfect model leaves nothing to correct."""
    flow = Flow(corrector=2.0, power=power)
    for error in (masked, uniform):
        found = [error(flow, count) for count in (32, 64, 128, 256)]
        assert found[3] < found[0] / 6
        assert found[3] > error(Flow(), 256)


@pytest.mark.parametrize(("name", "half"), [("linear", 0.5), ("polynomial", 0.8), ("cosine", 0.67)])
def test_the_corrector_corrects(name: SchedulerName, half: float) -> None:
    """Half of a text committed blindly in one step: fine steps do not mend it, fine steps with a corrector do."""

    def error(corrector: float) -> float:
        flow = Flow(Scheduler(name), corrector, solver="euler")
        times = [half + (1 - half) * number / 256 for number in range(257)]
        steps = [flow.step(0.0, half), *(flow.step(begin, end) for begin, end in pairwise(times))]
        return distance(masked_chain(CHAIN, LENGTH, [(step.commit, step.reopen) for step in steps]), TRUTH)

    assert error(0.0) > 3 * error(3.0)


def shares(steps: "list[tuple[float, float]]") -> list[float]:
    """How much of a text is committed after each step, whatever it is."""
    found, share = [], 0.0
    for commit, reopen in steps:
        share = share * (1 - reopen) + (1 - share) * commit
        found.append(share)
    return found


def remdm(count: int, **options: object) -> list[RemdmStep]:
    return remdm_steps(RemdmSettings.model_validate(options), count)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize(
    "options",
    [
        {"variant": "cap", "eta": 0.3},
        {"variant": "cap", "eta": 1.0, "scheduler": "cosine"},
        {"variant": "rescale", "eta": 0.5},
        {"variant": "rescale", "eta": 1.0, "scheduler": "polynomial", "exponent": 2.0},
    ],
)
def test_remdm_keeps_its_share(count: int, options: dict[str, object]) -> None:
    """Whatever is taken back, alpha is committed."""
    settings = RemdmSettings.model_validate(options)
    found = shares([(step.commit, step.reopen) for step in remdm(count, **options)])
    alpha = settings.chosen_scheduler()
    assert found == pytest.approx([alpha.at((number + 1) / count) for number in range(count)], abs=1e-12)
    assert count < 3 or any(step.reopen > 0 for step in remdm(count, **options))


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize("loop", [{}, {"t_on": 0.8, "t_off": 0.3, "alpha_on": 0.6, "eta": 0.5}])
def test_the_loop_keeps_its_share(count: int, loop: dict[str, float]) -> None:
    """Also where a step begins before t_on or t_off and ends behind it."""
    on, off, held = loop.get("t_on", 0.55), loop.get("t_off", 0.05), loop.get("alpha_on", 0.9)
    found = shares([(step.commit, step.reopen) for step in remdm(count, variant="loop", **loop)])
    times = [(count - number - 1) / count for number in range(count)]
    expected = [
        held * (1 - time) / (1 - on) if time >= on else held if time >= off else 1 - (1 - held) * time / off
        for time in times
    ]
    assert found == pytest.approx(expected, abs=1e-12)
    if count == 64:
        assert max(step.reopen for step in remdm(count, variant="loop", **loop)) == loop.get("eta", 0.02)


def test_remdm_without_eta_is_ancestral_sampling() -> None:
    """The same probabilities as flow matching's."""
    for count in (1, 5):
        flow = [step.commit for step in Flow().steps(count)]
        assert [step.commit for step in remdm(count, variant="cap", eta=0.0)] == pytest.approx(flow)


def bias(flow: Flow, count: int) -> float:
    """The largest difference between what is committed and kappa, before the last step."""
    steps = flow.steps(count)
    found = shares([(step.commit, step.reopen) for step in steps])
    return max(abs(share - flow.scheduler.at(step.end)) for share, step in zip(found[:-1], steps[:-1], strict=True))


@pytest.mark.parametrize(
    ("name", "solver", "corrector", "power"),
    [
        ("linear", "integrated", 2.0, 0.25),
        ("linear", "integrated", 10.0, 0.25),
        ("cosine", "integrated", 10.0, 1.0),
        ("polynomial", "integrated", 10.0, 1.0),
        ("cosine", "euler", 2.0, 0.25),
        ("polynomial", "euler", 10.0, 0.25),
        ("cosine", "euler", 0.0, 0.25),
    ],
)
def test_the_bias_of_the_flow_corrector_halves(
    name: SchedulerName, solver: SolverName, corrector: float, power: float
) -> None:
    """As steps double, for any fixed clean text."""
    flow = Flow(Scheduler(name), corrector, power, solver)
    found = [bias(flow, count) for count in (128, 256, 512, 1024)]
    for one, other in pairwise(found):
        assert one / other == pytest.approx(2, abs=0.35)


@pytest.mark.parametrize(
    ("flow", "count"),
    [(Flow(), 64), (Flow(Scheduler("cosine")), 7), (Flow(corrector=10.0, solver="euler"), 32)],
)
def test_some_have_no_bias(flow: Flow, count: int) -> None:
    """Integrated rates without a corrector; frozen ones on the linear schedule, with one, too."""
    assert bias(flow, count) < 1e-12
