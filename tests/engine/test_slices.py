"""Prompts in slices: the same answers, and nobody in company waits for more than a slice."""

from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.kept_prefixes import KeptPrefixes

LONG = "Tell me of whales, please. " * 12


def request_of(model: Model, question: str, **options: Any) -> Request:
    chat = [{"role": "user", "content": question}]
    return Request(model.encode_chat(chat), SamplingConfig(**{"max_new_tokens": 24, "logprobs": 1, **options}))


@pytest.mark.parametrize("size", [1, 50, 64, 1000])
@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
def test_answers_are_the_same(tiny: Model, mode: str, size: int) -> None:
    """To the bit of their log-probabilities, sampled or not, whatever a slice holds."""
    for own in ({}, {"temperature": 1.0, "seed": 3}):
        request = request_of(tiny, LONG if size > 1 else "why?", mode=mode, **own)
        [whole] = tiny.engine().generate([request])
        [found] = tiny.engine().generate([replace(request, slice=size)])
        assert (found.tokens, found.logprobs, found.reason) == (whole.tokens, whole.logprobs, whole.reason)
        slices = (len(request.tokens) - 1) // size
        assert found.usage.total_passes == whole.usage.total_passes + slices
        assert found.usage.rows == whole.usage.rows
        assert found.usage.passes.get("slice", 0) == slices
        assert found.usage.passes["prefill"] == whole.usage.passes["prefill"]


def test_others_go_on(tiny: Model) -> None:
    """While a long prompt is read they get on by a pass for each of its slices; nothing is shown of it before."""
    engine = tiny.engine()
    short = engine.admit(request_of(tiny, "why?", mode="ar"))
    engine.step()
    long = engine.admit(replace(request_of(tiny, LONG), slice=32))
    slices = (len(request_of(tiny, LONG).tokens) - 1) // 32
    assert slices > 5
    for _ in range(slices):
        events = engine.step()
        assert [event for event in events if event.row == short and isinstance(event, Commit)]
        [draft] = [event for event in events if event.row == long]
        assert isinstance(draft, Draft)
        assert (draft.tokens, draft.text) == ((), "")
    events = engine.step()
    assert [event for event in events if event.row == long and isinstance(event, Commit)]


def test_prefixes_are_found_and_left(tiny: Model) -> None:
    """What is cached is not read again; what was read in slices is found by the next turn."""
    kept = KeptPrefixes(1000)
    engine = Engine(tiny.denoiser, tiny.tokenizer, tiny.engine().modes, kept)
    request = replace(request_of(tiny, LONG), slice=40)
    [first] = engine.generate([request])
    [second] = engine.generate([request])
    assert isinstance(first, Finish)
    assert second.usage.cached_tokens == len(request.tokens) - 1
    assert second.usage.passes["prefill"] == 1
    assert second.tokens == first.tokens


def test_leaving_in_the_middle(tiny: Model) -> None:
    """Frees the row."""
    engine = tiny.engine()
    number = engine.admit(replace(request_of(tiny, LONG), slice=32))
    engine.step()
    engine.cancel(number)
    assert engine.active == ()
    assert engine.step() == []
