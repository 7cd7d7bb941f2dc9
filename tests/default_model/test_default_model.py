"""The shipped model, really decoded: lossless, batched as alone, faster than one token a pass."""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.sharing import SharedModel

pytestmark = pytest.mark.slow

#: A word or a list number, with the punctuation around it.
WORD = re.compile(r"[\W_]*([a-z]+(['’-][a-z]+)*|\d+)[\W_]*")

PROMPTS = (
    "Give me three tips for a job interview.",
    "Why is the sea salty?",
    "Write a short thank-you note to a neighbour who watered my plants.",
    "What is the difference between weather and climate?",
    "List five vegetables that grow in spring.",
    "Explain photosynthesis to a child.",
)


def requests(model: Model, **options: Any) -> list[Request]:
    """The prompts, with unequal lengths of answer and a seed each."""
    return [
        Request(
            model.encode_chat([{"role": "user", "content": prompt}]),
            SamplingConfig(max_new_tokens=28 + 4 * number, **(options | {"seed": number})),
        )
        for number, prompt in enumerate(PROMPTS)
    ]


@cache
def together(model: Model, **options: Any) -> list[Finish]:
    """All prompts in one batch; once for all tests."""
    return model.engine().generate(requests(model, **options))


@cache
def alone(model: Model, number: int, **options: Any) -> Finish:
    """A prompt decoded on its own; once for all tests."""
    return model.engine().generate([requests(model, **options)[number]])[0]


def all_alone(model: Model, **options: Any) -> list[Finish]:
    """Each prompt decoded on its own."""
    return [alone(model, number, **options) for number in range(len(PROMPTS))]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_speculative_is_ar_in_fewer_passes(default_model: Model, temperature: float) -> None:
    """Invariant 4, and the promise of at least 1.45 useful tokens a pass when greedy."""
    reference = together(default_model, mode="ar", temperature=temperature)
    found = all_alone(default_model, mode="speculative", temperature=temperature)
    assert [finish.tokens for finish in found] == [finish.tokens for finish in reference]
    useful = sum(finish.usage.useful_tokens for finish in found)
    passes = sum(finish.usage.total_passes for finish in found)
    assert useful / passes > (1.45 if temperature == 0 else 1.0)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("mode", ["speculative", "diffusion"])
def test_batch_equals_alone(default_model: Model, mode: str, temperature: float) -> None:
    """Invariant 2 on unequal prompts: any three of the batch, whose rows alone cost most."""
    chosen = range(int(temperature > 0), len(PROMPTS), 2)
    expected = [alone(default_model, number, mode=mode, temperature=temperature).tokens for number in chosen]
    found = together(default_model, mode=mode, temperature=temperature)
    assert [found[number].tokens for number in chosen] == expected


def test_float32_equals_transformers_greedy(load_default: Callable[[str], Model]) -> None:
    """Proved against the reference implementation, not against ourselves."""
    from transformers import AutoModelForCausalLM

    model = load_default("float32")
    network: Any = AutoModelForCausalLM.from_pretrained(require_base(), dtype=torch.float32)
    asked = requests(model)[:3]
    found = {
        mode: model.engine().generate(
            [Request(request.tokens, request.config.with_options(mode=mode)) for request in asked]
        )
        for mode in ("ar", "speculative")
    }
    for number, request in enumerate(asked):
        ids = torch.tensor([list(request.tokens)])
        room = request.config.max_new_tokens
        mask = torch.ones_like(ids)
        plain = network.generate(ids, attention_mask=mask, max_new_tokens=room, do_sample=False, pad_token_id=2)
        expected = [token for token in plain[0, ids.shape[1] :].tolist() if token not in model.denoiser.spec.stop_ids]
        for finishes in found.values():
            assert list(finishes[number].tokens) == expected


def test_stop_string_in_mid_block(default_model: Model) -> None:
    """Every mode ends where the text ends, and the rest of the canvas is not counted."""
    for mode in ("ar", "speculative", "diffusion"):
        whole = alone(default_model, 0, mode=mode, temperature=0.0).text
        stop = whole[30:36]
        cut = alone(default_model, 0, mode=mode, temperature=0.0, stop=(stop,))
        assert cut.text == whole[: whole.index(stop)]
        assert cut.reason == "stop"
        assert cut.usage.useful_tokens == len(cut.tokens)


def test_diffusion_writes_english(default_model: Model) -> None:
    """More tokens than passes, no word twice in a row."""
    found = together(default_model, mode="diffusion", temperature=0.0)
    assert sum(f.usage.useful_tokens for f in found) > 1.1 * sum(f.usage.total_passes for f in found)
    for finish in found:
        words = finish.text.lower().split()
        assert not [first for first, second in pairwise(words) if first == second and first.isalpha()]
        english = [word for word in words if WORD.fullmatch(word)]
        assert len(english) > 0.8 * len(words), finish.text


def test_the_second_turn_in_bfloat16(default_model: Model) -> None:
    """A kept prefix gives the very text that forwarding everything again gives."""
    shared = SharedModel(default_model)
    chat = [{"role": "user", "content": PROMPTS[1]}]
    for follow_up in ("Say that in one sentence.", "And in French?"):
        config = SamplingConfig(max_new_tokens=32)
        request = Request(default_model.encode_chat(chat), config)
        found, fresh = shared.generate([request])[0], default_model.engine().generate([request])[0]
        assert found.tokens == fresh.tokens
        assert found.usage.rows == fresh.usage.rows - found.usage.cached_tokens
        chat += [{"role": "assistant", "content": found.text}, {"role": "user", "content": follow_up}]
    assert found.usage.cached_tokens > 60
