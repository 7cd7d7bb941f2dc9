"""S2D2: drafts of a block, verified at block size one; the text is that of blocks of one position."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError

from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

LENGTH = 21


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights in blocks of four."""
    return random_model("sdar", "s2d2", "s2d2_ar", seed=1)


def decode(model: Model, stops: frozenset[int] = frozenset(), **options: Any) -> list[Finish]:
    """Four unequal prompts together, greedy and drawn in turn."""
    drawn = torch.Generator().manual_seed(3)
    requests = []
    for number in range(4):
        text = torch.randint(0, 28, (1 + 5 * number % 11,), generator=drawn).tolist()
        sampling = {"temperature": 0.7, "seed": number, "top_p": 0.95} if number % 2 else {}
        requests.append(Request(text, SamplingConfig(max_new_tokens=LENGTH, **sampling, **options), stops))
    return model.engine().generate(requests)


def texts(found: Sequence[Finish]) -> list[Any]:
    return [(finish.tokens, finish.text, finish.reason, finish.logprobs) for finish in found]


def test_blocks_of_one_are_the_familys_own(model: Model) -> None:
    """Greedy, `s2d2_ar` says what the family's sampler says in blocks of one position."""
    ours, theirs = decode(model, mode="s2d2_ar"), decode(model, mode="sdar", block_length=1)
    assert [one.tokens for one in ours[::2]] == [one.tokens for one in theirs[::2]]
    assert [one.usage.total_passes for one in ours] == [LENGTH] * 4


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"block_length": 2},
        {"block_length": 9},
        {"logprobs": 1},
        {"repetition_penalty": 1.3},
        {"stop": ["a"]},
    ],
    ids=["own", "two", "nine", "logprobs", "penalty", "stop"],
)
def test_equals_blocks_of_one(model: Model, options: dict[str, Any]) -> None:
    """Token for token, greedy and drawn, whatever is drafted; never in more passes."""
    plain = {name: value for name, value in options.items() if name != "block_length"}
    stops = frozenset({5})
    slow, fast = decode(model, stops, mode="s2d2_ar", **plain), decode(model, stops, mode="s2d2", **options)
    assert texts(fast) == texts(slow)
    for one, other in zip(fast, slow, strict=True):
        assert one.usage.total_passes <= other.usage.total_passes
        assert one.usage.drafts is not None
        assert one.usage.drafts["open_rows"] > 0
    assert any(one.usage.drafts and one.usage.drafts["denoiser_verified"] for one in fast)


def test_good_drafts_save_passes() -> None:
    """A model that is sure of its text whatever it sees: three of four drafts follow one token, and all are taken."""
    script = [number % 28 for number in range(64)]
    made = scripted_model(lambda _seen, position: says(script[position]), "s2d2", "s2d2_ar")
    [fast] = made.engine().generate([Request([0, 1], SamplingConfig(max_new_tokens=20, mode="s2d2"), frozenset())])
    assert list(fast.tokens) == script[2:22]
    # A pass for one token and three drafts, and one that verifies these and says one more.
    assert fast.usage.total_passes == 8
    assert fast.usage.drafts is not None
    assert fast.usage.drafts["denoiser_accepted"] == fast.usage.drafts["denoiser_verified"] == 12


def test_who_has_it() -> None:
    """Block-causal models whose positions predict themselves; a block of one has nothing to draft."""
    from dllm_plugins import plugins
    from dllm_plugins.families.spec import general_samplers

    having = {
        name for name, layout in plugins.families().items() if "s2d2" in general_samplers(layout, plugins.modes())
    }
    assert having == {"sdar", "sdar_moe", "llada2", "stable_diffcoder"}
    model = random_model("s2d2", seed=1)
    with pytest.raises(OptionError, match="block_length"):
        decode(model, mode="s2d2", block_length=1)
    assert MASK not in decode(model, mode="s2d2")[0].tokens
