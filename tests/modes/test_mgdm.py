"""MGDM's sampler in the engine against a plain loop of its paper's code."""

import math
from typing import Any

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise

from .batches import NEVER
from .batches import equal_alone
from .batches import unequal
from .tiny_models import MASK
from .tiny_models import random_model

PROMPTS = ([3, 4, 5], [6], [7, 8, 9, 10, 11, 12])


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "shifted"])
def model(request: pytest.FixtureRequest) -> Model:
    return random_model("mgdm", seed=5, cache="none", holds=True, shifted=request.param)


def one(model: Model, prompt: list[int], length: int = 9, **options: Any) -> Finish:
    config = SamplingConfig(**{"mode": "mgdm", "max_new_tokens": length, "seed": 1, **options})
    return model.engine().generate([Request(prompt, config, stop_ids=NEVER)])[0]


def reference(model: Model, prompt: list[int], length: int, steps: int, noise: float) -> list[int]:
    """HKUNLP's loop over a canvas: predict all, then mask the lowest scores again."""
    denoiser, shift = model.denoiser, int(model.denoiser.spec.shifted)
    canvas = [*prompt, *[MASK] * length]
    answer = range(len(prompt), len(canvas))
    for t in reversed(range(steps)):
        row = denoiser.open_row()
        wanted = [max(position - shift, 0) for position in answer]
        segment = Segment(row, list(canvas), range(len(canvas)), noisy=True, causal=False, wanted=wanted)
        logits = denoiser.logits(denoiser.forward([segment])[0]).double()
        denoiser.close_row(row)
        logits[:, MASK] = -math.inf
        scores, tokens = torch.log_softmax(logits, -1).max(-1)
        canvas[len(prompt) :] = tokens.tolist()
        if t:
            scores = scores + RowNoise(1).gumbel(Key(Purpose.MGDM_ORDER, step=t), length) * (noise * t / steps)
            for index in scores.argsort()[: length * t // steps].tolist():
                canvas[len(prompt) + index] = MASK
    return canvas[len(prompt) :]


@pytest.mark.parametrize(("steps", "noise"), [(1, 0.5), (4, 0.0), (4, 0.5), (12, 2.0)])
def test_tokens_are_those_of_the_plain_loop(model: Model, steps: int, noise: float) -> None:
    for prompt in PROMPTS:
        finish = one(model, prompt, steps=steps, preset_options={"stochastic": noise})
        assert [*finish.tokens] == reference(model, prompt, 9, steps, noise)
        assert finish.usage.total_passes == steps


def test_rows_of_any_length_are_as_they_are_alone(model: Model) -> None:
    equal_alone(model, unequal("mgdm", PROMPTS, {}, steps=4))


def test_tokens_are_revised() -> None:
    """What is written may change even where it did not open again."""
    model = random_model("mgdm", seed=5, cache="none", holds=True)
    assert one(model, [3, 4, 5], steps=1).tokens != one(model, [3, 4, 5], steps=6).tokens


def test_cosine_opens_more_at_first() -> None:
    from dllm_plugins.modes.mgdm import MgdmSettings
    from dllm_plugins.modes.mgdm import share

    linear, cosine = (MgdmSettings.model_validate({"steps": 4, "scheduler": name}) for name in ("linear", "cosine"))
    assert [share(linear, left) for left in (3, 2, 1)] == [0.75, 0.5, 0.25]
    assert [round(share(cosine, left), 3) for left in (3, 2, 1)] == [0.924, 0.707, 0.383]


@pytest.mark.parametrize("options", [{"stochastic": -1}, {"scheduler": "square"}, {"guidance": 2.0}])
def test_options_that_it_has_not_are_refused(options: dict[str, Any]) -> None:
    model = random_model("mgdm", seed=5, cache="none", holds=True)
    with pytest.raises(OptionError, match=next(iter(options))):
        one(model, [3], preset_options=options)
