"""Nemotron-Labs-Diffusion: its three modes, and the budget for thinking."""

from typing import Any

import pytest
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig

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


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
@pytest.mark.parametrize("options", [{}, {"threshold": 0.3}, {"block_length": 1}, {"block_length": 7}])
def test_speculation_is_lossless(model: Model, temperature: float, options: dict[str, Any]) -> None:
    """The text of `nemotron_ar`, greedy and sampled; drafts that are right save passes."""
    common: dict[str, Any] = {"temperature": temperature, "seed": 5, "max_new_tokens": 30}
    plain = run(model, PROMPTS, mode="nemotron_ar", **common)
    drafted = run(model, PROMPTS, mode="nemotron_speculative", **common, **options)
    assert [done.tokens for done in drafted] == [done.tokens for done in plain]


def test_speculation_saves_passes() -> None:
    """When drafts are right: a draft and a verification for every block."""
    counter = scripted_model(script_of_next_token, "nemotron_speculative")
    done = run(counter, [[5]], mode="nemotron_speculative", max_new_tokens=13)[0]
    assert list(done.tokens) == list(range(6, 19))
    assert done.usage.passes == {"prefill": 1, "draft": 3, "verify": 3}


def script_of_next_token(seen: dict[int, int], position: int) -> Tensor:
    """A known token is followed by the next number; an open position holds its own."""
    return says(position + 5 if seen[position] == MASK else seen[position] + 1)


def test_thinking_is_ended_in_time(model: Model) -> None:
    """Exactly behind the budget where tokens come one by one; in the block or the round that passes it otherwise."""
    for mode in ("nemotron_ar", "nemotron", "nemotron_speculative"):
        free = run(model, PROMPTS, mode=mode)
        word = next(token for token in range(27) if not any(token in done.tokens for done in free))
        for budget in (0, 3, 6):
            own = {"max_thinking_tokens": budget, "end_think_token_id": word}
            for done in run(model, PROMPTS, mode=mode, preset_options=own):
                position = done.tokens.index(word)
                assert position == budget if mode != "nemotron_speculative" else budget <= position <= budget + 4


@pytest.mark.parametrize("mode", ["nemotron_ar", "nemotron", "nemotron_speculative"])
def test_an_end_of_thinking_was_not_drawn(mode: str) -> None:
    """It has no logits; every other token has those that it was drawn from."""
    model, ends = scripted_model(script_of_next_token, mode), 20
    for budget in range(6):
        own = {"max_thinking_tokens": budget, "end_think_token_id": ends}
        config = SamplingConfig(mode=mode, max_new_tokens=10, preset_options=own)
        done = model.engine().generate([Request([1], config, frozenset(), logits=True)])[0]
        assert done.logits is not None
        drawn = [None if logits is None else int(logits.argmax()) for logits in done.logits]
        assert drawn == [None if token == ends else token for token in done.tokens]
        assert None in drawn


def test_thinking_budget_of_the_reference(model: Model) -> None:
    """Its speculation shows the word that the end of thinking replaced: the text then never ends its thinking."""
    own: dict[str, Any] = {"max_thinking_tokens": 3, "end_think_token_id": 26}
    ours = run(model, PROMPTS[:1], mode="nemotron_speculative", preset_options=own)[0].tokens
    theirs = run(model, PROMPTS[:1], mode="nemotron_speculative", preset_options=own | {"show_replaced": True})[
        0
    ].tokens
    position = ours.index(26)
    assert ours[:position] == theirs[:position]
    assert theirs[position] != 26


def test_nemotron_contexts(model: Model) -> None:
    """A causal context seeds every block; without it no pass is spent on what is finished."""
    causal = run(model, PROMPTS[:1], mode="nemotron", max_new_tokens=12)[0]
    both = run(model, PROMPTS[:1], mode="nemotron", max_new_tokens=12, preset_options={"causal_context": False})[0]
    assert causal.tokens[0] == int(logits_of(model, PROMPTS[0], causal=True)[-1, :MASK].argmax())
    assert causal.usage.passes == {"prefill": 1, "commit": 2, "predict": 9}
    assert both.usage.passes == {"prefill": 1, "predict": 11}
