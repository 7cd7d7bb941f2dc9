"""Stopping criteria and stop strings: asked token by token, however many tokens a pass commits."""

import time
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import PreTrainedTokenizerBase
from transformers import StoppingCriteria
from transformers import StoppingCriteriaList

from dllm_transformers import generate

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])
GREEDY: dict[str, Any] = {"max_new_tokens": 30, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


class Until(StoppingCriteria):
    """Ends a row at its n-th token; remembers the lengths it was asked about."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.seen: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        self.seen.append(input_ids.shape[1])
        return torch.full((len(input_ids),), input_ids.shape[1] >= self.length)


@pytest.mark.parametrize("mode", ["speculative", "diffusion", "ar"])
def test_a_criterion_ends_a_row_exactly(model: Any, strategy: partial[Any], mode: str) -> None:
    """Every length is asked about once, in order; the answer is the beginning of the whole one."""
    whole = model.generate(PROMPT, custom_generate=strategy, mode=mode, **GREEDY)
    criterion = Until(5 + 7)
    ours = model.generate(
        PROMPT, custom_generate=strategy, mode=mode, stopping_criteria=StoppingCriteriaList([criterion]), **GREEDY
    )
    assert ours.tolist() == whole[:, :12].tolist()
    assert criterion.seen == list(range(6, 13))


def test_criteria_of_a_batch(model: Any, strategy: partial[Any]) -> None:
    """One row ends, the others go on."""

    class StopsTheSecond(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
            return (input_ids[:, 0] == 40) & torch.tensor(input_ids.shape[1] >= 8)

    batch = torch.tensor([[5, 9, 77, 120, 33], [40, 41, 42, 43, 44]])
    whole = model.generate(batch, custom_generate=strategy, **GREEDY)
    criteria = StoppingCriteriaList([StopsTheSecond()])
    ours = model.generate(batch, custom_generate=strategy, stopping_criteria=criteria, **GREEDY)
    assert ours[0].tolist() == whole[0].tolist()
    assert ours[1, :8].tolist() == whole[1, :8].tolist()
    assert set(ours[1, 8:].tolist()) == {0}


def test_max_time(model: Any, strategy: partial[Any]) -> None:
    """Time is up at the first token asked about."""
    ours = model.generate(PROMPT, custom_generate=strategy, max_time=1e-9, **GREEDY)
    assert ours.shape[1] == 6
    began = time.monotonic()
    model.generate(PROMPT, custom_generate=strategy, max_time=60.0, **GREEDY)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("way", ["generate", "bound", "front door", "config"])
def test_stop_strings_as_in_transformers(
    model: Any, strategy: partial[Any], tokenizer: PreTrainedTokenizerBase, way: str
) -> None:
    """The same ids as plain greedy generate() with these stop strings, in fewer passes."""
    whole = model.generate(PROMPT, **GREEDY)[0, 5:]
    stop = tokenizer.decode(whole[6:8])
    plain = model.generate(PROMPT, stop_strings=[stop], tokenizer=tokenizer, **GREEDY)
    assert plain.shape[1] < 5 + len(whole)
    if way == "generate":
        ours = model.generate(PROMPT, custom_generate=strategy, stop_strings=[stop], tokenizer=tokenizer, **GREEDY)
    elif way == "bound":
        bound = partial(strategy, tokenizer=tokenizer)
        ours = model.generate(PROMPT, custom_generate=bound, stop_strings=stop, **GREEDY)
    else:
        given: dict[str, Any] = {"stop_strings": [stop], **GREEDY}
        if way == "config":
            given = {"generation_config": GenerationConfig(**given)}
        ours = generate(model, PROMPT, tokenizer=tokenizer, denoiser=strategy.keywords["denoiser"], **given)
    assert ours.tolist() == plain.tolist()
