"""Samplers with an autoregressive element: Fast-dLLM v2, WeDLM, Nemotron-Labs-Diffusion."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.errors import OptionError

from .seeded import MODES
from .seeded import PROMPTS
from .seeded import logits_of
from .seeded import run
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights, every mode."""
    return random_model(*MODES)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_equals_its_rows_alone(model: Model, mode: str, temperature: float) -> None:
    """Whatever the prompts' lengths; the budget is kept exactly and no mask is left."""
    for length in (1, 6, 13):
        options = {"mode": mode, "temperature": temperature, "seed": 3, "max_new_tokens": length, **MODES[mode]}
        together = run(model, PROMPTS, **options)
        alone = [run(model, [prompt], **options)[0] for prompt in PROMPTS]
        assert [(done.tokens, done.usage.passes) for done in together] == [
            (done.tokens, done.usage.passes) for done in alone
        ]
        assert {len(done.tokens) for done in together} == {length}
        assert all(MASK not in done.tokens for done in together)


@pytest.mark.parametrize("mode", MODES)
def test_sampling_follows_the_seed(model: Model, mode: str) -> None:
    """The same twice, something else with another seed, and one likeliest token as at temperature 0."""
    options = {"mode": mode, "temperature": 2.0, **MODES[mode]}
    first, again, other = (run(model, PROMPTS, seed=seed, **options)[0].tokens for seed in (1, 1, 2))
    assert first == again != other
    if mode in ("wedlm", "nemotron_ar"):
        assert (
            run(model, PROMPTS, top_k=1, **options)[1].tokens == run(model, PROMPTS, mode=mode, **MODES[mode])[1].tokens
        )


@pytest.mark.parametrize("mode", MODES)
def test_a_stop_id_ends_the_answer(model: Model, mode: str) -> None:
    """What stands before it is the answer, in no more passes."""
    whole = run(model, PROMPTS[:1], mode=mode, **MODES[mode])[0]
    stop = whole.tokens[5]
    done = run(model, PROMPTS[:1], [stop], mode=mode, **MODES[mode])[0]
    assert done.tokens == whole.tokens[: whole.tokens.index(stop)]
    assert (done.reason, done.stop_token) == ("eos", stop)
    assert done.usage.total_passes <= whole.usage.total_passes


def test_fast_dllm_v2_sees_a_prompt_of_one_block(model: Model) -> None:
    """The reference forwards the next block without it, so that any such prompt has the same answer."""
    first, second = [5, 6, 7, 8], [9, 3, 2, 1]
    answers = [run(model, [prompt], mode="fast_dllm_v2")[0].tokens for prompt in (first, second)]
    assert answers[0] != answers[1]
    for prompt, answer in zip((first, second), answers, strict=True):
        assert answer[0] == int(logits_of(model, prompt, causal=False)[-1, :MASK].argmax())


def test_fast_dllm_v2_begins_blocks_greedily(model: Model) -> None:
    """At any temperature: the first token of a block is the commit's likeliest."""
    done = run(model, PROMPTS[1:2], mode="fast_dllm_v2", temperature=2.0, seed=1, max_new_tokens=5)[0]
    assert done.tokens[0] == int(logits_of(model, PROMPTS[1], causal=False)[-1, :MASK].argmax())
    assert done.usage.passes["commit"] == 1


def test_fast_dllm_v2_says_when_it_approximates(model: Model) -> None:
    """Fewer rows with the block cache, and the statistics tell."""
    options: dict[str, Any] = {"mode": "fast_dllm_v2", "block_length": 8}
    exact = run(model, PROMPTS[:1], preset_options={"small_block_size": 4}, **options)[0]
    stale = run(model, PROMPTS[:1], preset_options={"small_block_size": 4, "use_block_cache": True}, **options)[0]
    assert (exact.usage.cache, stale.usage.cache) == ("exact", "approximate")
    assert stale.usage.rows < exact.usage.rows


def test_fast_dllm_v2_batch_rule(model: Model) -> None:
    """The block that holds the id is filled before the answer ends behind it, and commits do not look."""
    options: dict[str, Any] = {"mode": "fast_dllm_v2", "block_length": 8}
    whole = run(model, PROMPTS[:1], max_new_tokens=21, **options)[0].tokens
    for position in (1, 2, 7, 9):
        stop = whole[position]
        inside = [index for index, token in enumerate(whole) if token == stop and (index + 3) % 8]
        done = run(model, PROMPTS[:1], max_new_tokens=21, preset_options={"batch_stop_ids": [stop]}, **options)[0]
        assert done.tokens == whole[: inside[0] + 1]
        assert done.reason == "eos"


def test_wedlm_reorders(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    """Known tokens first, positions as they are, causal; a token is cached once nothing open is to its left."""
    seen: list[Segment] = []
    forward = model.denoiser.forward

    def spy(segments: Sequence[Segment]) -> list[Tensor]:
        seen.extend(segments)
        return forward(segments)

    monkeypatch.setattr(model.denoiser, "forward", spy)
    run(model, PROMPTS[:1], mode="wedlm", block_length=6, max_new_tokens=20)
    assert all(segment.causal for segment in seen)
    assert any(list(segment.positions) != sorted(segment.positions) for segment in seen)
    for segment in seen:
        opened = [token == MASK for token in segment.tokens]
        assert opened == sorted(opened)
    assert [0 in segment.positions for segment in seen] == [True] + [False] * (len(seen) - 1)


def test_wedlm_cuts_before_the_temperature_acts() -> None:
    """top_p leaves one token of the raw distribution, however hot it is drawn."""
    sure = scripted_model(lambda _seen, position: says(position % 20, logit=6.0), "wedlm")
    done = run(sure, PROMPTS[:1], mode="wedlm", temperature=50.0, top_p=0.5, seed=0)[0]
    assert list(done.tokens) == [position % 20 for position in range(3, 16)]


def test_wedlm_block_threshold_is_not_strict() -> None:
    """All at once if the confidence reaches it; one a pass without a threshold."""
    flat = scripted_model(lambda _seen, position: says(position % 20, logit=0.0, t7=40.0), "wedlm_block")
    assert run(flat, PROMPTS[:1], mode="wedlm_block", threshold=1.0, block_length=4)[0].usage.total_passes == 4
    assert run(flat, PROMPTS[:1], mode="wedlm_block", block_length=4)[0].usage.total_passes == 13


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mode": "nemotron", "preset_options": {"max_thinking_tokens": 3}}, "end_think_token_id"),
        ({"mode": "nemotron_ar", "preset_options": {"end_think_token_id": 3}}, "max_thinking_tokens"),
        ({"mode": "nemotron", "preset_options": {"max_thinking_tokens": 3, "end_think_token_id": MASK}}, "31"),
        ({"mode": "nemotron", "preset_options": {"max_thinking_tokens": 3, "end_think_token_id": 99}}, "99"),
        ({"mode": "nemotron_speculative", "preset_options": {"show_replaced": True}}, "show_replaced"),
        ({"mode": "nemotron_ar", "threshold": 0.5}, "threshold"),
        ({"mode": "nemotron", "steps": 3}, "steps"),
        ({"mode": "fast_dllm_v2", "preset_options": {"small_block_size": 5}}, "small_block_size=5"),
        ({"mode": "fast_dllm_v2", "top_p": 0.5}, "top_p"),
        ({"mode": "wedlm", "threshold": 0.5}, "threshold"),
        ({"mode": "wedlm", "preset_options": {"entropy_threshold": -1.0}}, "entropy_threshold"),
        ({"mode": "wedlm_block", "preset_options": {"confidence_temperature": 0.0}}, "confidence_temperature"),
    ],
)
def test_refused(model: Model, options: dict[str, Any], named: str) -> None:
    """With the option, its value or its limit in the message."""
    with pytest.raises(OptionError, match=named):
        model.engine().admit(Request([5], SamplingConfig(**options)))


def test_drafts_are_never_the_mask(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the model wants nothing else."""
    head = model.denoiser.logits

    def wants_mask(hidden: Tensor, left: Tensor | None = None) -> Tensor:
        return head(hidden, left).index_fill(-1, torch.tensor([MASK]), 50.0)

    monkeypatch.setattr(model.denoiser, "logits", wants_mask)
    for mode in MODES:
        done = run(model, PROMPTS[:1], mode=mode, **MODES[mode])[0]
        assert len(done.tokens) == 13
        assert MASK not in done.tokens
