"""Flow matching's samplers in the engine: ancestral sampling, attention, drafts, lengths, options, random tokens."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.processes.flow import Flow
from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.processes.flow import SchedulerName
from dllm_plugins.processes.flow import chosen

from .batches import NEVER
from .batches import equal_alone
from .batches import unequal
from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

PROMPTS = ([3, 4, 5], [6], [7, 8, 9, 10, 11, 12])
CORRECTED = {"corrector": 4.0}


def whole(shifted: bool = False, **fields: Any) -> Model:
    """Seen both ways."""
    return random_model("flow", "remdm", seed=5, cache="none", holds=True, shifted=shifted, **fields)


def cached(shifted: bool = False) -> Model:
    """In blocks of four from position 0."""
    return random_model("flow", "remdm", seed=5, shifted=shifted)


def one(model: Model, prompt: list[int], stop_ids: frozenset[int] = NEVER, **options: Any) -> Finish:
    config = SamplingConfig(**{"mode": "flow", "max_new_tokens": 9, "temperature": 1.0, "seed": 1, **options})
    return model.engine().generate([Request(prompt, config, stop_ids=stop_ids)])[0]


def logits_of(model: Model, tokens: list[int], groups: list[int] | None) -> Tensor:
    """Logits [N, V] of one whole forward, none of the mask."""
    denoiser, positions = model.denoiser, range(len(tokens))
    row = denoiser.open_row()
    segment = Segment(row, tokens, positions, causal=False, wanted=positions, groups=groups)
    found = denoiser.logits(denoiser.forward([segment])[0])
    denoiser.close_row(row)
    return found.index_fill(-1, torch.tensor([MASK]), -torch.inf)


def ancestral(model: Model, prompt: list[int], length: int, steps: int, seed: int, *, own: str | None) -> list[int]:
    """Masked diffusion after MDLM, uncached: a masked position stays one with probability (1 - s) / (1 - t).

    Written for itself, but with the noise that the sampler has: a number for every position and
    step, and another one for its token. Linear schedule.

    :param own: the checkpoint's own sampler, None if it sees everything: blocks of four from
        position 0 or from the prompt's end, with finished text in blocks or causal.
    """
    noise, shift, end = RowNoise(seed), int(model.denoiser.spec.shifted), len(prompt) + length
    anchor = len(prompt) if own in ("bd3lm", "nemotron") else 0
    last = end if own in (None, "bd3lm") else anchor - (anchor - end) // 4 * 4
    text = prompt + [MASK] * (last - len(prompt))
    begins = range(len(prompt) - (len(prompt) - anchor) % 4, last, 4)
    bounds = [(max(begin, len(prompt)), min(begin + 4, last)) for begin in begins] if own else [(len(prompt), end)]
    for begin, stop in bounds:
        numbers = [(position - anchor) // 4 for position in range(stop)]
        if own == "nemotron":
            numbers = [*range(begin), *[begin] * (stop - begin)]
        for step in range(steps):
            luck = noise.uniform(Key(Purpose.FLOW_MOVES, begin, step), stop - begin + 1)
            stays = (1 - (step + 1) / steps) / (1 - step / steps)
            logits = logits_of(model, text[:stop] if own else text, numbers if own else None)
            for position in range(begin, stop):
                if text[position] == MASK and 1 - luck[position - begin] > stays:
                    reached = logits[position - shift].double().softmax(-1).cumsum(-1)
                    number = float(noise.uniform(Key(Purpose.CANVAS, position, step), 1))
                    text[position] = int((reached >= number).int().argmax())
    return text[len(prompt) : end]


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("own", [None, "sdar", "bd3lm", "nemotron"])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_it_is_ancestral_sampling(steps: int, own: str | None, shifted: bool) -> None:
    """Token for token with the same noise, on a whole canvas and in cached blocks of every kind."""
    cache = "none" if own in (None, "bd3lm") else "exact"
    samplers = {"flow": "flow", **({} if own is None else {"diffusion": own})}
    model = random_model("flow", seed=5, cache=cache, samplers=samplers, shifted=shifted)
    for prompt in PROMPTS:
        assert list(one(model, prompt, steps=steps).tokens) == ancestral(model, prompt, 9, steps, 1, own=own)


def test_blocks_may_be_asked_for() -> None:
    """Of a model that sees both ways: the next one begins where one is done."""
    finish = one(whole(), [3, 4], block_length=3, steps=2)
    assert finish.tokens != one(whole(), [3, 4], steps=2).tokens
    assert finish.usage.total_passes <= 6


def test_a_step_that_commits_nothing_needs_no_pass() -> None:
    """No more passes than positions, however many steps; even steps never idle."""
    for model in (whole(), cached()):
        assert one(model, [3, 4, 5], steps=300).usage.total_passes <= 9 + 2
    for steps in (1, 2, 5, 9):
        found = one(whole(), [3], steps=steps, preset_options={"few_steps": True})
        assert found.usage.total_passes == steps


def test_more_passes_than_positions_with_a_corrector() -> None:
    """Reopened positions are committed again."""
    assert one(whole(), [3, 4, 5], steps=64, preset_options={"corrector": 20.0}).usage.total_passes > 9


@pytest.mark.parametrize("make", [whole, cached])
@pytest.mark.parametrize("options", [{}, CORRECTED, {**CORRECTED, "solver": "euler"}, {"few_steps": True}])
def test_a_batch_equals_its_rows_alone(make: Callable[[], Model], options: dict[str, Any]) -> None:
    """Unequal prompts, lengths, seeds, temperatures."""
    together = equal_alone(make(), unequal("flow", PROMPTS, options))
    assert [len(found.tokens) for found in together] == [6, 7, 8]


@pytest.mark.parametrize("make", [whole, cached])
def test_drafts_are_tentative(make: Callable[[], Model]) -> None:
    """With a corrector tokens that were shown become open again, and what was committed stays."""
    options = {"corrector": 20.0}
    config = SamplingConfig(
        mode="flow", max_new_tokens=8, temperature=1.0, steps=24, seed=3, block_length=4, preset_options=options
    )
    committed: list[int] = []
    shown: list[list[int | None]] = []
    for event in make().engine().stream(Request([3, 4, 5, 6], config, stop_ids=NEVER)):
        if isinstance(event, Commit):
            committed += event.tokens
        elif isinstance(event, Draft):
            shown.append([*committed, *event.tokens])
        elif isinstance(event, Finish):
            assert list(event.tokens[: len(committed)]) == committed
            assert len(event.tokens) == 8
    assert any(
        one[position] is not None and other[position] is None for one, other in pairwise(shown) for position in range(8)
    )


def test_without_a_corrector_text_streams() -> None:
    """What is committed from the left is final at once; with one nothing is before the last step."""
    for options, early in (({}, True), (CORRECTED, False)):
        config = SamplingConfig(mode="flow", max_new_tokens=12, temperature=1.0, seed=1, preset_options=options)
        events = list(whole().engine().stream(Request([3, 4], config, stop_ids=NEVER)))
        commits = [number for number, event in enumerate(events) if isinstance(event, Commit)]
        assert (commits[0] < len(events) - 2) == early


@pytest.mark.parametrize("mode", ["flow", "remdm"])
@pytest.mark.parametrize("fields", [{"cache": "none"}, {}])
def test_a_model_that_predicts_the_mask(mode: str, fields: dict[str, Any]) -> None:
    """The next best token is committed; at temperature 0 it is the same each time it is reopened."""
    model = scripted_model(lambda _seen, position: says(MASK, 9.0, **{f"t{position}": 4.0}), mode, **fields)
    options = CORRECTED if mode == "flow" else {"eta": 0.5}
    finish = one(model, [1, 2], mode=mode, max_new_tokens=6, temperature=0.0, preset_options=options)
    assert finish.tokens == (2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize("options", [{}, CORRECTED])
def test_the_end_of_text_ends_the_answer(options: dict[str, Any]) -> None:
    """Blocks behind it are never denoised."""
    model = scripted_model(lambda _seen, position: says(EOS if position == 6 else position, 9.0), "flow")
    finish = one(model, [3], frozenset({EOS}), temperature=0.0, max_new_tokens=20, preset_options=options, steps=4)
    assert finish.tokens == (1, 2, 3, 4, 5)
    assert finish.reason == "eos"
    assert finish.usage.total_passes <= 8


def test_greedy_depends_on_the_seed_of_the_order() -> None:
    """When a position is committed is drawn at temperature 0, too; the statistics name the seed."""
    found = {one(whole(), [3, 4], temperature=0.0, seed=seed, steps=6).tokens for seed in range(6)}
    assert len(found) > 1
    assert one(whole(), [3], temperature=0.0, seed=8).usage.seed == 8


def test_guidance_and_caches_of_whole_canvases() -> None:
    """They are as with other samplers; blocks have none."""
    model = whole()
    plain = one(model, [3, 4, 5], block_length=3)
    assert one(model, [3, 4, 5], block_length=3, approximate_cache="dual", refresh=1).tokens == plain.tokens
    assert one(model, [3, 4, 5], guidance=2.0).tokens != one(model, [3, 4, 5]).tokens
    for options in ({"guidance": 1.0}, {"approximate_cache": "prefix"}):
        with pytest.raises(OptionError, match=next(iter(options))):
            one(cached(), [3], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"exponent": 2.0},
        {"exponent": 0.0, "scheduler": "polynomial"},
        {"scheduler": "quadratic"},
        {"solver": "heun"},
        {"solver": "euler", "few_steps": True},
        {"corrector": -1.0},
        {"corrector_power": 0.5},
        {"eta": 0.1},
        {"self_conditioning": True},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """When the request is admitted, by name."""
    with pytest.raises(OptionError, match=next(iter(options))):
        one(whole(), [3], preset_options=options)


NAMES: list[SchedulerName] = ["linear", "polynomial", "cosine"]


@pytest.mark.parametrize("name", NAMES)
def test_schedulers(name: SchedulerName) -> None:
    """They rise from 0 to 1, and the derivative is theirs."""
    scheduler, time = Scheduler(name), torch.linspace(0, 1, 101, dtype=torch.float64)
    kappa = scheduler.kappa(time)
    assert kappa[0] == 0
    assert float(kappa[-1]) == pytest.approx(1)
    assert (kappa.diff() > 0).all()
    inside = time[1:-1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(scheduler.kappa(inside).sum(), inside, allow_unused=True)
    assert torch.allclose(scheduler.slope(inside), slope)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("corrector", [0.0, 2.0, 10.0, 100.0])
@pytest.mark.parametrize("count", [1, 2, 8, 100])
def test_every_step_has_probabilities(name: SchedulerName, corrector: float, count: int) -> None:
    """Integrated in `count` steps; Euler's in more, none of which is longer than its rates allow."""
    for power in (0.0, 0.25, 2.0):
        flow = Flow(Scheduler(name), corrector, power)
        assert len(flow.steps(count)) == count
        euler = Flow(Scheduler(name), corrector, power, "euler").steps(count)
        assert len(euler) >= count
        for steps in (flow.steps(count), euler):
            assert [step.begin for step in steps[1:]] == [step.end for step in steps[:-1]]
            for step in steps:
                for chance in (step.commit, step.reopen, step.jump, step.forward):
                    assert 0 <= chance <= 1 + 1e-9
            assert (steps[-1].commit, steps[-1].reopen, steps[-1].end) == (1, 0, 1)


def test_integrated_rates_as_written() -> None:
    """1 - ((1 - k_s) / (1 - k_t))^a and 1 - (k_t / k_s)^b, a and b of the step's beginning."""
    flow = Flow(Scheduler("polynomial", 2.0), 3.0, 0.5)
    step = flow.steps(4)[1]
    back = 3.0 * (0.25 * 0.75) ** 0.5
    assert step.commit == pytest.approx(1 - ((1 - 0.25) / (1 - 0.0625)) ** (1 + back))
    assert step.reopen == pytest.approx(1 - (0.0625 / 0.25) ** back)
    euler = Flow(Scheduler("polynomial", 2.0), 3.0, 0.5, "euler").steps(64)[16]
    back = 3.0 * (euler.begin * (1 - euler.begin)) ** 0.5
    length, kappa, slope = euler.end - euler.begin, euler.begin**2, 2 * euler.begin
    assert euler.commit == pytest.approx(length * (1 + back) * slope / (1 - kappa))
    assert euler.reopen == pytest.approx(length * back * slope / kappa)


def test_even_choices_have_their_probability() -> None:
    """Each of ten positions at 0.35 is among the three or four chosen as often as it should."""
    counts = torch.zeros(10)
    for seed in range(4000):
        jumps = chosen(RowNoise(seed).uniform(Key(Purpose.PLUGIN), 11).tolist(), [0.35] * 10, evenly=True)
        assert sum(jumps) in (3, 4)
        counts += torch.tensor(jumps)
    assert torch.allclose(counts / 4000, torch.tensor(0.35), atol=0.035)
