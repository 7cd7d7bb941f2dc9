"""Invariant 4: AR-verified drafts == AR, greedy and sampled; and the drafts are really used."""

from collections.abc import Callable
from typing import Any

import pytest

from dllm_plugins import Engine
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser

from .knowing import KnowingDenoiser

PROMPTS = [[5], [7, 8, 9], [1, 40, 41, 42, 43, 44, 45, 46, 60, 61, 62], list(range(10, 120))]
SAMPLING = [
    {},
    {"temperature": 0.8, "seed": 1},
    {"temperature": 1.3, "seed": 2, "top_k": 7},
    {"temperature": 1.0, "seed": 3, "top_p": 0.6},
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "0.8", "top_k", "top_p"])
def test_speculative_equals_ar(load_tiny: Callable[[str], Model], dtype: str, sampling: dict[str, Any]) -> None:
    """The same tokens, whatever the draft length, in both dtypes; rows with unlike drafts share a pass."""
    engine = load_tiny(dtype).engine()

    def told(**options: Any) -> list[Any]:
        config = SamplingConfig(max_new_tokens=50, **sampling, **options)
        return [
            (finish.tokens, finish.reason)
            for finish in engine.generate([Request(prompt, config) for prompt in PROMPTS])
        ]

    expected = told(mode="ar")
    for length in (1, 3, 4, 8):
        assert told(mode="speculative", draft_length=length) == expected


@pytest.mark.parametrize(("fault", "most"), [(0, 12), (3, 24), (1, 48)])
def test_right_drafts_save_passes_and_wrong_ones_do_no_harm(tiny: Model, fault: int, most: int) -> None:
    """With perfect drafts of length 4 a pass yields five tokens; with hopeless ones exactly one."""
    prompt = [1, 40, 41, 42]
    config = SamplingConfig(mode="ar", max_new_tokens=48, temperature=1.0, seed=11)
    expected = tiny.engine().generate([Request(prompt, config)])[0]
    assert isinstance(tiny.denoiser, TriModeDenoiser)
    knowing = KnowingDenoiser(tiny.denoiser, [*prompt, *expected.tokens], fault)
    engine = Engine(knowing, tiny.tokenizer, plugins.modes())
    found = engine.generate([Request(prompt, config.with_options(mode="speculative", draft_length=4))])[0]
    assert found.tokens == expected.tokens
    assert found.usage.total_passes <= most
    if fault == 1:
        assert found.usage.total_passes == len(found.tokens)
