"""Flow matching from random tokens: on a tiny DiffusionGemma, and on a model that writes down what it is given."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.training.solvable import Letters

from .batches import NEVER
from .batches import equal_alone
from .batches import unequal
from .tiny_gemma import LENGTH
from .tiny_gemma import VOCABULARY
from .tiny_models import Scripted
from .tiny_models import says
from .tiny_models import spec

PROMPTS = ([3, 4, 5], [6], list(range(3, 25)))


class Watched(Scripted):
    """Remembers the canvases it is given, and whether it was told what it said."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.given: list[list[int]] = []
        self.told: list[Tensor | None] = []

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        self.given.append(list(segments[-1].tokens))
        self.told.append(segments[-1].conditioning)
        return super().forward(segments)


def watched() -> tuple[Model, Watched]:
    """It says its position, whatever it sees."""
    denoiser = Watched(
        lambda _seen, position: says(position, 30.0), spec("flow_uniform", mask_id=32, block_length=LENGTH)
    )
    return Model("watched", denoiser, Letters()), denoiser


def one(model: Model, prompt: list[int], stop_ids: frozenset[int] = NEVER, **options: Any) -> Finish:
    config = SamplingConfig(**{"mode": "flow_uniform", "max_new_tokens": 9, "temperature": 1.0, "seed": 1, **options})
    return model.engine().generate([Request(prompt, config, stop_ids=stop_ids)])[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"corrector": 4.0}, {"corrector": 2.0, "solver": "euler", "scheduler": "cosine"}, {"few_steps": True}],
)
def test_a_batch_equals_its_rows_alone(gemma: Model, options: dict[str, Any]) -> None:
    """Unequal prompts, beyond the window too, lengths and seeds; lengths are kept exactly."""
    together = equal_alone(gemma, unequal("flow_uniform", PROMPTS, options, begin=5, more=3, steps=5))
    assert [len(found.tokens) for found in together] == [5, 8, 11]
    assert all(0 <= token < VOCABULARY for found in together for token in found.tokens)


def test_passes_are_steps(gemma: Model) -> None:
    """Every canvas gets as many as it is told; Euler's solver takes more where it must."""
    assert one(gemma, [3], steps=7).usage.passes == {"prefill": 1, "predict": 13}
    euler = one(gemma, [3], steps=7, preset_options={"solver": "euler", "corrector": 10.0})
    assert euler.usage.total_passes > 14


def test_it_starts_from_random_tokens_and_ends_in_the_models() -> None:
    """The last step draws every position; without a corrector what is right stays right."""
    model, denoiser = watched()
    finish = one(model, [0], steps=6, max_new_tokens=LENGTH)
    assert finish.tokens == (1, 2, 3, 4, 5, 6)
    right = [[token == position for position, token in enumerate(tokens, 1)] for tokens in denoiser.given]
    assert len(denoiser.given) == 6
    assert sum(right[0]) < 3
    assert all(now <= after for one_, other in pairwise(right) for now, after in zip(one_, other, strict=True))


def test_a_corrector_makes_noise() -> None:
    """Right tokens become random again, and right again in the end."""
    model, denoiser = watched()
    finish = one(model, [0], steps=40, max_new_tokens=LENGTH, preset_options={"corrector": 20.0})
    assert finish.tokens == (1, 2, 3, 4, 5, 6)
    right = [[token == position for position, token in enumerate(tokens, 1)] for tokens in denoiser.given]
    assert any(now > after for one_, other in pairwise(right) for now, after in zip(one_, other, strict=True))


def test_the_model_is_told_what_it_said() -> None:
    """In the pass before, scaled by the temperature; unless that is off, and never about another canvas."""
    for temperature in (0.0, 0.5):
        model, denoiser = watched()
        one(model, [0], steps=3, temperature=temperature, max_new_tokens=2 * LENGTH)
        assert [told is None for told in denoiser.told] == [True, False, False] * 2
        told = denoiser.told[1]
        assert told is not None
        assert float(told[0].max()) == 30.0 / (temperature or 1.0)
    model, denoiser = watched()
    one(model, [0], steps=3, preset_options={"self_conditioning": False})
    assert denoiser.told == [None] * 6


def test_nothing_is_final_before_the_last_step(gemma: Model) -> None:
    """Drafts show what the canvas holds; the tokens of a canvas are committed together."""
    config = SamplingConfig(mode="flow_uniform", max_new_tokens=12, temperature=1.0, seed=1, steps=4)
    events = list(gemma.engine().stream(Request([3, 4], config, stop_ids=NEVER)))
    commits = [(event.step, len(event.tokens)) for event in events if isinstance(event, Commit)]
    assert commits[0] == (4, LENGTH)
    drafts = [event.tokens for event in events if isinstance(event, Draft)]
    assert drafts[0] != drafts[1]
    assert len(drafts[0]) == 12


def test_the_end_of_text_ends_the_answer() -> None:
    """No canvas behind the one that holds it."""
    model, denoiser = watched()
    finish = one(model, [0], frozenset({4}), steps=3, max_new_tokens=3 * LENGTH)
    assert finish.tokens == (1, 2, 3)
    assert len(denoiser.given) == 3


@pytest.mark.parametrize(
    ("options", "common", "named"),
    [
        ({"exponent": 2.0}, {}, "exponent"),
        ({"corrector_power": 1.0}, {}, "corrector_power"),
        ({"few_steps": True, "solver": "euler"}, {}, "few_steps"),
        ({"entropy_bound": 0.1}, {}, "entropy_bound"),
        ({}, {"guidance": 1.0}, "guidance"),
        ({}, {"threshold": 0.5}, "threshold"),
        ({}, {"temperature": 0.0, "top_k": 3}, "top_k"),
    ],
)
def test_bad_options_are_refused(gemma: Model, options: dict[str, Any], common: dict[str, Any], named: str) -> None:
    """When the request is admitted, by name."""
    with pytest.raises(OptionError, match=named):
        one(gemma, [3], preset_options=options, **common)
    with pytest.raises(OptionError, match="flow_uniform"):
        one(gemma, [3], mode="flow")
