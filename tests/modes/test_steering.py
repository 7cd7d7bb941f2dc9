"""Penalties and bans: from left to right as transformers' own processors, on a canvas as far as they mean something."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers import LogitsProcessorList
from transformers import SequenceBiasLogitsProcessor
from transformers import SuppressTokensAtBeginLogitsProcessor

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig

from .tiny_models import EOS
from .tiny_models import MASK
from .tiny_models import random_model

PROMPT = [5, 9, 77, 120, 33, 9, 77]
TEXT = [1, 2, 3, 4, 5]
NEVER: frozenset[int] = frozenset()
LENGTH = 40


@pytest.fixture(scope="module")
def plain(tiny_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)


def theirs(plain: Any, stop: int | None = None, **options: Any) -> list[int]:
    """What transformers' own greedy generate() answers."""
    ids = torch.tensor([PROMPT])
    found = plain.generate(ids, max_new_tokens=LENGTH, do_sample=False, eos_token_id=stop, pad_token_id=0, **options)
    answer: list[int] = found[0, len(PROMPT) :].tolist()
    return answer


def ours(model: Model, mode: str, stop: frozenset[int] = NEVER, processors: Any = (), **options: Any) -> Finish:
    config = SamplingConfig(mode=mode, max_new_tokens=LENGTH, **options)
    return model.engine().generate([Request(PROMPT, config, stop, processors=processors)])[0]


def told(finish: Finish) -> list[int]:
    return [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]


@pytest.mark.parametrize("mode", ["ar", "speculative"])
@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.4},
        {"repetition_penalty": 0.6},
        {"repetition_penalty": 0.5, "no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 1},
        {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3},
    ],
)
def test_from_left_to_right_as_transformers(plain: Any, tiny: Model, mode: str, options: dict[str, Any]) -> None:
    """Token for token, prompt included, and another answer than without."""
    expected = theirs(plain, **options)
    assert told(ours(tiny, mode, **options)) == expected
    assert expected != theirs(plain)


@pytest.mark.parametrize("mode", ["ar", "speculative"])
def test_bans_as_transformers(plain: Any, tiny: Model, mode: str) -> None:
    """Tokens, runs of tokens, and ends that come too early."""
    free = theirs(plain)
    words = [[free[0]], free[3:5], [free[7], free[8], free[9]]]
    expected = theirs(plain, bad_words_ids=words)
    assert told(ours(tiny, mode, bad_words=tuple(map(tuple, words)))) == expected != free
    for least in (1, 4, 12):
        stop = free[2]
        expected = theirs(plain, stop, min_new_tokens=least)
        finish = ours(tiny, mode, frozenset({stop}), min_new_tokens=least)
        assert told(finish) == expected
        assert len(finish.tokens) >= least


@pytest.mark.parametrize("mode", ["ar", "speculative"])
def test_any_processor_of_transformers(plain: Any, tiny: Model, mode: str) -> None:
    """In their order, behind our own options; also one that somebody wrote."""

    def no_odd(ids: Tensor, scores: Tensor) -> Tensor:
        """Every third token is even."""
        odd = torch.arange(scores.shape[-1]) % 2 == 1
        return scores.masked_fill(odd & (ids.shape[1] % 3 == 0), -torch.inf)

    free = theirs(plain)
    processors = [
        SequenceBiasLogitsProcessor(sequence_bias=[[[free[0]], -50.0], [free[1:3], 8.0]]),
        SuppressTokensAtBeginLogitsProcessor([free[0]], len(PROMPT)),
        no_odd,
    ]
    expected = theirs(plain, repetition_penalty=1.2, logits_processor=LogitsProcessorList(processors))
    assert told(ours(tiny, mode, processors=processors, repetition_penalty=1.2)) == expected
    assert all(token % 2 == 0 for token in expected[2::3])


def test_sampled_speculative_text_is_sampled_ar_text_with_them(tiny: Model) -> None:
    """And with the likelihoods of the model's own logits, which penalties leave alone."""
    options: dict[str, Any] = {"temperature": 1.1, "seed": 4, "repetition_penalty": 0.5, "no_repeat_ngram_size": 9}
    found = {mode: ours(tiny, mode, **options, bad_words=((77,), (5, 9)), logprobs=1) for mode in ("ar", "speculative")}
    assert found["ar"].tokens == found["speculative"].tokens
    assert found["speculative"].usage.total_passes < found["ar"].usage.total_passes
    final = ours(tiny, "ar", **options, bad_words=((77,), (5, 9)), logprobs=1, logprobs_at="final").logprobs
    for finish in found.values():
        assert finish.logprobs is not None
        assert final is not None
        assert [said.logprob for said in finish.logprobs] == pytest.approx([said.logprob for said in final], abs=1e-4)


def test_bans_of_texts(tiny: Model) -> None:
    """As they begin a line and behind a space; without a tokenizer there are only ids."""
    letter = next(letter for letter in ours(tiny, "ar").text if letter.isascii() and letter.isprintable())
    finish = ours(tiny, "ar", bad_words=(letter,))
    assert letter not in finish.text
    model = random_model("llada", cache="none", holds=True)
    with pytest.raises(DllmError, match=r"bad_words has the text 'x'.*give token ids"):
        model.engine().admit(Request(TEXT, SamplingConfig(mode="llada", bad_words=("x",))))


@pytest.mark.parametrize(
    ("mode", "fields"),
    [
        ("llada", {"cache": "none", "holds": True}),
        ("dream", {"cache": "none", "holds": True, "shifted": True}),
        ("mdlm", {"cache": "none", "holds": True}),
        ("sdar", {}),
        ("llada2.0", {}),
        ("blocks", {}),
        ("idlm", {"shifted": True}),
        ("wedlm", {}),
        ("nemotron", {}),
        ("nemotron_ar", {}),
        ("nemotron_repair", {}),
    ],
)
def test_on_a_canvas(mode: str, fields: dict[str, Any]) -> None:
    """A banned token never comes, no end before the least, and what is settled is less likely elsewhere."""
    model = random_model(mode, **fields)

    def answer(**options: Any) -> Finish:
        config = SamplingConfig(mode=mode, max_new_tokens=12, temperature=1.0, seed=1, **options)
        return model.engine().generate([Request(TEXT, config)])[0]

    free = answer().tokens
    banned = set(free[:3])
    assert not banned.intersection(answer(bad_words=tuple((token,) for token in banned)).tokens)
    for seed in range(4):
        config = SamplingConfig(mode=mode, max_new_tokens=12, temperature=4.0, seed=seed, min_new_tokens=9)
        finish = model.engine().generate([Request(TEXT, config)])[0]
        assert len(finish.tokens) >= 9
        assert EOS not in finish.tokens
        assert MASK not in finish.tokens
    fresh = answer(repetition_penalty=100.0).tokens
    assert fresh != free
    assert len(set(fresh)) >= len(set(free))
    assert answer(repetition_penalty=1.0).tokens == free


def test_a_constraint_comes_before_a_ban(tiny: Model) -> None:
    """What it demands is written although it is banned."""
    from dllm_plugins.constraints.values import Regex

    word = tiny.tokenizer.encode("a", add_special_tokens=False)
    for mode in ("ar", "speculative", "diffusion"):
        config = SamplingConfig(mode=mode, max_new_tokens=8, constraint=Regex("a{3}"), bad_words=(tuple(word),))
        assert tiny.engine().generate([Request(PROMPT, config)])[0].text == "aaa"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"no_repeat_ngram_size": 2}, r"no_repeat_ngram_size=2 .*mode='ar' or 'speculative'"),
        ({"bad_words": ((3, 4),)}, r"bad_words of several tokens, such as \[3, 4\],.*'ar'"),
        ({"bad_words": ((99,),)}, r"bad_words has \[99\]"),
        ({"bad_words": tuple((token,) for token in range(32))}, "bad_words names all 32 ids"),
    ],
)
def test_what_means_nothing_on_a_canvas_is_refused(options: dict[str, Any], words: str) -> None:
    """By the name of the mode that does it."""
    model = random_model("llada", cache="none", holds=True)
    with pytest.raises(DllmError, match=words):
        model.engine().admit(Request(TEXT, SamplingConfig(mode="llada", **options)))
    with pytest.raises(DllmError, match=r"a logits processor \(function\).*'ar'"):
        model.engine().admit(Request(TEXT, SamplingConfig(mode="llada"), processors=(lambda ids, scores: scores,)))


def test_what_a_mode_cannot_do_or_no_value_is_refused(gemma: Model) -> None:
    """Uniform noise; values out of range."""
    with pytest.raises(DllmError, match=r"repetition_penalty=1.2 has no effect in mode 'diffusion_gemma'"):
        gemma.engine().admit(Request([3], SamplingConfig(repetition_penalty=1.2)))
    for wrong in (
        {"repetition_penalty": 0.0},
        {"repetition_penalty": True},
        {"no_repeat_ngram_size": 0},
        {"bad_words": ("",)},
        {"bad_words": ((),)},
        {"min_new_tokens": 300},
        {"min_new_tokens": 0},
    ):
        with pytest.raises(DllmError, match=next(iter(wrong))):
            SamplingConfig(**wrong)
