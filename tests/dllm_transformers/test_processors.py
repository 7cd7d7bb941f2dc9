"""Logits processors: as in transformers' own loop, token for token, in modes that write from left to right."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessor
from transformers import LogitsProcessorList

from dllm_plugins import DllmError
from dllm_transformers import DiffusionModelForCausalLM

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])
BATCH = torch.tensor([[0, 0, 5, 9, 77], [40, 41, 42, 43, 44]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
OPTIONS: dict[str, Any] = {"max_new_tokens": 24, "pad_token_id": 0, "do_sample": False, "eos_token_id": None}


class EvenNow(LogitsProcessor):
    """Every third position holds an even id."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        odd = torch.arange(scores.shape[-1]) % 2 == 1
        return scores.masked_fill(odd & (input_ids.shape[1] % 3 == 0), -torch.inf)


@pytest.mark.parametrize("mode", ["ar", "speculative"])
@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.5, "no_repeat_ngram_size": 3},
        {"bad_words_ids": [[116], [211], [190, 183]]},
        {"min_new_tokens": 9, "eos_token_id": list(range(100, 200))},
        {"min_length": 9, "eos_token_id": list(range(100, 200))},
        {"suppress_tokens": list(range(100, 230))},
        {"begin_suppress_tokens": list(range(80, 230))},
        {"sequence_bias": [[[116], -9.0], [[5, 9], 4.0]]},
        {"forced_eos_token_id": 7},
        {"logits_processor": LogitsProcessorList([EvenNow()]), "repetition_penalty": 1.2},
        {"exponential_decay_length_penalty": (3, 1.5), "eos_token_id": 8},
    ],
)
def test_batches_as_in_transformers(model: Any, strategy: partial[Any], mode: str, options: dict[str, Any]) -> None:
    """Padded rows of unequal length, every field that makes a processor, and one of the user's own."""
    given = {**OPTIONS, **options}
    expected = model.generate(BATCH, attention_mask=MASK, **given)
    ours = model.generate(BATCH, attention_mask=MASK, custom_generate=strategy, mode=mode, **given)
    assert ours.tolist() == expected.tolist()
    plain = {**OPTIONS, "eos_token_id": options.get("eos_token_id")}
    assert expected.tolist() != model.generate(BATCH, attention_mask=MASK, **plain).tolist()


def test_scores_are_those_of_transformers(model: Any, strategy: partial[Any]) -> None:
    """Behind the processors; `logits` before them."""
    given = {**OPTIONS, "repetition_penalty": 1.4, "return_dict_in_generate": True}
    given |= {"output_scores": True, "output_logits": True, "logits_processor": LogitsProcessorList([EvenNow()])}
    plain = model.generate(PROMPT, **given)
    ours = model.generate(PROMPT, custom_generate=strategy, mode="speculative", **given)
    assert ours.sequences.tolist() == plain.sequences.tolist()
    for name in ("scores", "logits"):
        for found, expected in zip(ours[name], plain[name], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_penalties_on_a_canvas(model: Any, strategy: partial[Any], llada: Path) -> None:
    """Where tokens settle in any order: bans hold, penalties change the answer."""
    answer = partial(model.generate, PROMPT, custom_generate=strategy, mode="diffusion", **OPTIONS)
    free = answer()[0, 5:].tolist()
    assert not {free[0], free[4]}.intersection(answer(bad_words_ids=[[free[0]], [free[4]]])[0, 5:].tolist())
    assert len(set(answer(repetition_penalty=50.0)[0, 5:].tolist())) > len(set(free)) // 2
    other = DiffusionModelForCausalLM.from_pretrained(llada)
    few = {"max_new_tokens": 8, "block_length": 4, "steps": 4, "pad_token_id": 0}
    free = other.generate(PROMPT, **few)[0, 5:].tolist()
    assert free[0] not in other.generate(PROMPT, bad_words_ids=[[free[0]]], **few)[0, 5:].tolist()
    with pytest.raises(DllmError, match=r"EvenNow .*mode='ar'"):
        other.generate(PROMPT, logits_processor=LogitsProcessorList([EvenNow()]), **few)
