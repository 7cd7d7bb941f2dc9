"""ReMDM in the engine: what is taken back, the reference's probabilities, lengths, batches, options."""

from itertools import pairwise
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Draft
from dllm_plugins.modes.remdm import RemdmSettings
from dllm_plugins.modes.remdm import shares
from dllm_plugins.modes.remdm import steps

from .batches import NEVER
from .batches import equal_alone
from .batches import unequal
from .tiny_models import MASK
from .tiny_models import random_model

PROMPTS = ([3, 4, 5], [6], [7, 8, 9, 10, 11, 12])
VARIANTS: list[dict[str, Any]] = [
    {"variant": "cap", "eta": 0.4},
    {"variant": "rescale", "eta": 0.6, "scheduler": "cosine"},
    {"variant": "conf"},
    {"variant": "loop", "t_on": 0.7, "t_off": 0.2, "alpha_on": 0.6, "eta": 0.5},
]


@pytest.fixture(scope="module", params=[{"cache": "none"}, {}], ids=["whole", "blocks"])
def model(request: pytest.FixtureRequest) -> Model:
    """Seen both ways, or in blocks of four."""
    return random_model("remdm", "flow", seed=5, **request.param)


def one(model: Model, prompt: list[int], **options: Any) -> Finish:
    config = SamplingConfig(**{"mode": "remdm", "max_new_tokens": 9, "temperature": 1.0, "seed": 1, **options})
    return model.engine().generate([Request(prompt, config, stop_ids=NEVER)])[0]


def made(**options: Any) -> RemdmSettings:
    return RemdmSettings.model_validate(options)


def test_cap_and_rescale_as_in_the_source() -> None:
    """Its formulas with t = 1 - alpha, at the fourth of ten steps."""
    now, after = 0.3, 0.4
    for options, sigma in (
        ({"variant": "cap"}, 0.008),
        ({"variant": "cap", "eta": 0.7}, 0.7),
        ({"variant": "rescale", "eta": 0.25}, 0.25),
    ):
        step = steps(made(**options), 10)[3]
        assert step.reopen == pytest.approx(sigma)
        assert step.commit == pytest.approx((after - (1 - sigma) * now) / (1 - now))
    late = steps(made(variant="cap", eta=0.7), 10)[8]
    assert late.reopen == pytest.approx(0.1 / 0.8)


def test_loop_as_in_the_source() -> None:
    """It rises as plain masked diffusion does, waits at alpha_on, and rises again."""
    found = steps(made(variant="loop", t_on=0.5, t_off=0.25, alpha_on=0.8, eta=0.1), 8)
    assert [step.reopen for step in found] == pytest.approx([0, 0, 0, 0, 0.1, 0.1, 0, 0])
    assert found[1].commit == pytest.approx(0.2 / (1 - 0.2))
    assert found[4].commit == pytest.approx(0.1 * 0.8 / (1 - 0.8))
    assert found[6].commit == pytest.approx(0.5)


def test_confidence_as_in_the_source() -> None:
    """A softmax over minus the probabilities, times the bound; open positions at the plain rate."""
    step = steps(made(variant="conf"), 4)[2]
    assert (step.commit, step.reopen) == pytest.approx((0.5, 0.5))
    first, second = shares(step.reopen, [4, 6], {4: 0.9, 6: 0.2, 8: 0.1}, made(variant="conf"))
    assert first + second == pytest.approx(step.reopen)
    assert second / first == pytest.approx(2.718281828 ** (0.9 - 0.2))
    assert shares(0.3, [4, 6], {}, made()) == [0.3, 0.3]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["variant"])
def test_tokens_are_taken_back(model: Model, options: dict[str, Any]) -> None:
    """And end committed: no mask, the right length, the same text from the same seed."""
    found = one(model, [3, 4, 5], steps=24, preset_options=options)
    assert len(found.tokens) == 9
    assert MASK not in found.tokens
    assert found.tokens == one(model, [3, 4, 5], steps=24, preset_options=options).tokens
    config = SamplingConfig(
        mode="remdm", max_new_tokens=9, temperature=1.0, seed=2, steps=24, preset_options=options, block_length=12
    )
    drafts = [
        event.tokens
        for event in model.engine().stream(Request([3], config, stop_ids=NEVER))
        if isinstance(event, Draft)
    ]
    assert any(
        before is not None and after is None
        for one_, other in pairwise(drafts)
        for before, after in zip(one_, other, strict=False)
    )


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["variant"])
def test_a_batch_equals_its_rows_alone(model: Model, options: dict[str, Any]) -> None:
    together = equal_alone(model, unequal("remdm", PROMPTS, options))
    assert [len(found.tokens) for found in together] == [6, 7, 8]


def test_one_step_commits_all(model: Model) -> None:
    """Whatever the variant: the last step takes nothing back."""
    for options in VARIANTS:
        assert one(model, [3, 4], max_new_tokens=2, steps=1, preset_options=options).usage.total_passes == 1


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "max"},
        {"eta": 1.5},
        {"eta": 0.1, "variant": "conf"},
        {"t_on": 0.5},
        {"alpha_on": 0.5, "variant": "conf"},
        {"t_off": 0.6, "variant": "loop"},
        {"eta": 0.2, "variant": "loop"},
        {"scheduler": "cosine", "variant": "loop"},
        {"exponent": 2.0},
        {"corrector": 1.0},
    ],
)
def test_bad_options_are_refused(model: Model, options: dict[str, Any]) -> None:
    """When the request is admitted, by name."""
    with pytest.raises(OptionError, match=next(iter(options))):
        model.engine().admit(Request([3], SamplingConfig(mode="remdm", preset_options=options)))
