"""Dict-like outputs: statistics, scores, and the prefix across turns."""

from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch
from transformers.generation.utils import GenerateDecoderOnlyOutput

from dllm_plugins import DllmError
from dllm_plugins.engine.profile import PARTS
from dllm_transformers import PrefixCache

PROMPT = torch.tensor([[5, 9, 77, 120, 33]])
BATCH = torch.tensor([[0, 0, 5, 9, 77], [40, 41, 42, 43, 44]])
MASK = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
OPTIONS: dict[str, Any] = {"max_new_tokens": 24, "pad_token_id": 0, "return_dict_in_generate": True}


def test_statistics_of_every_row(model: Any, strategy: partial[Any]) -> None:
    """Sequences as without the dict, and what they cost."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy}
    output = model.generate(BATCH, attention_mask=MASK, **options)
    plain = model.generate(BATCH, attention_mask=MASK, **{**options, "return_dict_in_generate": False})
    assert output.sequences.tolist() == plain.tolist()
    assert output["sequences"] is output.sequences
    assert output.scores is None
    assert output.logits is None
    assert len(output.usage) == len(output.finish_reasons) == 2
    for row, usage in enumerate(output.usage):
        assert usage["tokens_per_forward"] == pytest.approx(float(output.tokens_per_forward[row]), abs=1e-4)
        assert usage["mode"] == "speculative"
    assert set(output.finish_reasons) <= {"eos", "length"}


def test_times_by_part(model: Any, strategy: partial[Any]) -> None:
    """With `stats`, in the dict-like output only; without, no such field."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy}
    output = model.generate(BATCH, attention_mask=MASK, stats=True, **options)
    # What the denoiser can tell of its forward, forward/..., depends on the machine.
    assert [{name for name in parts if "/" not in name} for parts in output.parts] == [set(PARTS)] * 2
    assert [usage["parts"] for usage in output.usage] == output.parts
    assert model.generate(BATCH, attention_mask=MASK, **options).parts is None
    with pytest.raises(DllmError, match="return_dict_in_generate=True"):
        model.generate(BATCH, attention_mask=MASK, stats=True, **{**options, "return_dict_in_generate": False})


@pytest.mark.parametrize("mode", ["ar", "speculative"])
def test_scores_equal_those_of_plain_generate(model: Any, strategy: partial[Any], mode: str) -> None:
    """Greedy and float32: raw logits and processed scores, position by position."""
    options = {**OPTIONS, "do_sample": False, "output_scores": True, "output_logits": True}
    plain = model.generate(PROMPT, **options)
    ours = model.generate(PROMPT, custom_generate=strategy, mode=mode, **options)
    assert isinstance(plain, GenerateDecoderOnlyOutput)
    assert ours.sequences.tolist() == plain.sequences.tolist()
    assert plain.logits is not None
    assert len(ours.logits) == len(plain.logits) == len(ours.scores)
    for found, raw, expected in zip(ours.scores, ours.logits, plain.logits, strict=True):
        torch.testing.assert_close(raw, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(found, raw)


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion"])
def test_log_probabilities_of_every_row(model: Any, strategy: partial[Any], mode: str) -> None:
    """Those of transformers' own `compute_transition_scores` where both are told; the likeliest is first."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy, "mode": mode, "eos_token_id": None}
    out = model.generate(BATCH, attention_mask=MASK, output_logits=True, logprobs=2, **options)
    expected = model.compute_transition_scores(out.sequences, out.logits, normalize_logits=True)
    for row, said in enumerate(out.logprobs):
        assert [one.token for one in said] == out.sequences[row, 5:].tolist()
        assert [one.logprob for one in said] == pytest.approx(expected[row].tolist(), abs=1e-5)
        assert all(len(one.top) == 2 and one.top[0] == (one.token, one.logprob) for one in said)
    final = model.generate(BATCH, attention_mask=MASK, logprobs=0, logprobs_at="final", **options)
    assert final.sequences.tolist() == out.sequences.tolist()
    for row, said in enumerate(final.logprobs):
        ids = out.sequences[row : row + 1, 2 if row == 0 else 0 :]
        with torch.no_grad():
            logits = model(ids).logits[0].log_softmax(-1)
        wanted = logits[:-1].gather(1, ids[0, 1:, None])[-len(said) :, 0]
        assert [one.logprob for one in said] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_log_probabilities_need_the_dict(model: Any, strategy: partial[Any]) -> None:
    """There is nowhere else for them; on the generation config, too. Not asked for, they are not there."""
    options = {**OPTIONS, "custom_generate": strategy}
    assert model.generate(PROMPT, **options).logprobs is None
    for wanted in ({"logprobs": 0}, {"logprobs": 3}):
        with pytest.raises(DllmError, match=r"logprobs=\d needs return_dict_in_generate=True"):
            model.generate(PROMPT, **{**options, "return_dict_in_generate": False}, **wanted)
    with pytest.raises(DllmError, match="logprobs=99"):
        model.generate(PROMPT, logprobs=99, **options)


def test_processed_scores_of_sampling(model: Any, strategy: partial[Any]) -> None:
    """Temperature and truncation as the tokens were drawn with; a drawn token is never impossible."""
    for mode in ("speculative", "diffusion"):
        ours = model.generate(
            PROMPT,
            custom_generate=strategy,
            mode=mode,
            do_sample=True,
            temperature=0.7,
            top_k=5,
            seed=3,
            output_scores=True,
            **OPTIONS,
        )
        assert ours.logits is None
        for place, column in enumerate(ours.scores):
            assert int((column > -torch.inf).sum()) == 5
            assert column[0, ours.sequences[0, 5 + place]] > -torch.inf


def test_scores_behind_the_end_of_a_row(model: Any, strategy: partial[Any]) -> None:
    """The pad token is certain there, so that sums over a batch stay right."""
    ours = model.generate(BATCH, attention_mask=MASK, custom_generate=strategy, output_scores=True, **OPTIONS)
    short = model.generate(
        BATCH,
        attention_mask=MASK,
        custom_generate=strategy,
        output_scores=True,
        **{**OPTIONS, "eos_token_id": [2, int(ours.sequences[0, 7])]},
    )
    length = short.usage[0]["useful_tokens"] + 1
    for column in short.scores[length:]:
        assert column[0, 0] == 0
        assert int((column[0] > -torch.inf).sum()) == 1


def cache_name(model: Any) -> str:
    """What this version of transformers calls a prefix cache."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def test_the_second_turn_takes_the_prefix_up(model: Any, strategy: partial[Any]) -> None:
    """From the output of the first, or from an empty cache handed in; only new rows are forwarded."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy, "eos_token_id": None}
    first = model.generate(PROMPT, **options)
    turn = torch.cat([first.sequences, torch.tensor([[60, 61, 62]])], dim=1)
    fresh = model.generate(turn, **options)
    assert fresh.usage[0]["cached_tokens"] == 0
    own = PrefixCache()
    model.generate(PROMPT, **{**options, "return_dict_in_generate": False}, **{cache_name(model): own})
    for cache in (first.past_key_values, own):
        assert cache.get_seq_length() >= PROMPT.shape[1]
        second = model.generate(turn, **options, **{cache_name(model): cache})
        assert second.sequences.tolist() == fresh.sequences.tolist()
        assert second.usage[0]["cached_tokens"] >= first.sequences.shape[1] - 1
        assert second.usage[0]["rows"] == fresh.usage[0]["rows"] - second.usage[0]["cached_tokens"]
        assert second.past_key_values is cache


def test_a_prefix_of_other_weights_is_refused(model: Any, strategy: partial[Any]) -> None:
    """It would be stale: the keys and values are those of the weights before."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy}
    first = model.generate(PROMPT, **options)
    with torch.no_grad():
        model.get_parameter("model.layers.0.mlp.down_proj.weight").mul_(-3.0)
    with pytest.raises(DllmError, match="before its weights changed"):
        model.generate(first.sequences, **options, **{cache_name(model): first.cache})


def test_prefixes_of_a_batch_of_unequal_rows(model: Any, strategy: partial[Any]) -> None:
    """Every row finds its own, whatever the padding of the next turn."""
    options = {**OPTIONS, "do_sample": False, "custom_generate": strategy, "eos_token_id": None}
    first = model.generate(BATCH, attention_mask=MASK, **options)
    pad = torch.zeros(2, 1, dtype=torch.int64)
    turn = torch.cat([pad, first.sequences, torch.tensor([[60], [61]])], dim=1)
    mask = torch.ones_like(turn)
    mask[0, :3] = mask[1, :1] = 0
    second = model.generate(turn, attention_mask=mask, **options, **{cache_name(model): first.past_key_values})
    fresh = model.generate(turn, attention_mask=mask, **options)
    assert second.sequences.tolist() == fresh.sequences.tolist()
    assert all(usage["cached_tokens"] > 20 for usage in second.usage)


def test_an_answer_that_the_context_ends(model: Any, strategy: partial[Any]) -> None:
    """It says so, in each row by itself; one that fits does not."""
    ids, mask = torch.full((2, 505), 7), torch.ones(2, 505, dtype=torch.int64)
    mask[0, :200] = 0
    out = model.generate(
        ids,
        attention_mask=mask,
        custom_generate=strategy,
        mode="ar",
        max_new_tokens=9,
        eos_token_id=None,
        return_dict_in_generate=True,
    )
    assert out.finish_reasons == ["length", "context"]
    assert [row["useful_tokens"] for row in out.usage] == [9, 7]
