"""Log-probabilities of tokens: at settling and from one more look, in every mode, and nothing when not asked."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import DllmError
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig

from .shifted import EOS
from .shifted import load
from .shifted import request
from .tiny_models import MASK
from .tiny_models import VOCABULARY
from .tiny_models import random_model

PROMPT = [1, 5, 9, 77, 120]
TEXT = [1, 2, 3, 4, 5]
#: Modes of the tiny random model, the attention it is decoded with, and options that they need.
MODES: list[tuple[str, str, dict[str, Any]]] = [
    ("llada", "bidirectional", {}),
    ("dream", "bidirectional", {"shifted": True}),
    ("mdlm", "bidirectional", {}),
    ("remdm", "bidirectional", {}),
    ("saber", "bidirectional", {}),
    ("wino", "bidirectional", {}),
    ("freedave", "bidirectional", {}),
    ("flow", "bidirectional", {}),
    ("open_dcoder", "bidirectional", {"shifted": True}),
    ("rnd1", "bidirectional", {}),
    ("diffullama", "bidirectional", {"shifted": True}),
    ("scheduled", "bidirectional", {}),
    ("blocks", "block-causal", {}),
    ("sdar", "block-causal", {}),
    ("llada2.0", "block-causal", {}),
    ("llada2.1", "block-causal", {}),
    ("llada2.2", "block-causal", {}),
    ("fast_dllm_v2", "block-causal", {"shifted": True}),
    ("stable_diffcoder", "block-causal", {}),
    ("idlm", "causal", {"shifted": True}),
    ("nemotron", "causal context, bidirectional block", {}),
    ("nemotron_ar", "causal context, bidirectional block", {}),
    ("nemotron_repair", "causal context, bidirectional block", {}),
    ("nemotron_speculative", "causal context, bidirectional block", {}),
    ("bd3lm", "", {}),
    ("wedlm", "", {}),
    ("wedlm_block", "", {}),
]


def made(mode: str, attention: str, fields: dict[str, Any]) -> Model:
    cache = "none" if attention == "bidirectional" else "exact"
    return random_model(mode, **{"cache": cache, "holds": cache == "none", "attention": attention, **fields})


def decode(model: Model, tokens: list[int], config: SamplingConfig, **request: Any) -> tuple[list[Any], Finish]:
    events = list(model.engine().stream(Request(tokens, config, frozenset(), **request)))
    assert isinstance(events[-1], Finish)
    return events, events[-1]


def expected(logits: Tensor | None, token: int) -> float | None:
    return None if logits is None else float(torch.log_softmax(logits.float(), -1)[token])


@pytest.mark.parametrize(("mode", "attention", "fields"), MODES)
def test_settling_is_of_the_logits_that_a_token_was_drawn_from(
    mode: str, attention: str, fields: dict[str, Any]
) -> None:
    """In every mode and at any temperature; alternatives are the likeliest, in order, and never the mask."""
    model = made(mode, attention, fields)
    config = SamplingConfig(mode=mode, max_new_tokens=12, temperature=1.3, seed=5, logprobs=3)
    events, finish = decode(model, TEXT, config, logits=True)
    assert finish.logits is not None
    assert finish.logprobs is not None
    assert len(finish.logprobs) == len(finish.tokens) == 12
    known = 0
    for said, token, logits in zip(finish.logprobs, finish.tokens, finish.logits, strict=True):
        assert said.token == token
        assert said.logprob == pytest.approx(expected(logits, token), abs=1e-5)
        if logits is None:
            continue
        known += 1
        order = torch.argsort(torch.log_softmax(logits, -1), descending=True, stable=True).tolist()
        assert [other for other, _ in said.top] == [other for other in order if other != MASK][:3]
        assert all(value == pytest.approx(expected(logits, other), abs=1e-5) for other, value in said.top)
    assert known >= 11
    commits = [said for event in events if isinstance(event, Commit) for said in event.logprobs]
    assert commits == list(finish.logprobs)
    plain = model.engine().generate([Request(TEXT, config.with_options(logprobs=None), frozenset())])[0]
    assert plain.tokens == finish.tokens
    assert plain.logprobs is None


@pytest.mark.parametrize(("mode", "attention", "fields"), [case for case in MODES if case[1]])
def test_final_is_what_one_forward_of_the_whole_text_says(mode: str, attention: str, fields: dict[str, Any]) -> None:
    """Under the family's attention, all tokens known; it is counted as a pass of its own."""
    model = made(mode, attention, fields)
    options = {"mode": mode, "max_new_tokens": 8, "temperature": 1.0, "seed": 2}
    _, without = decode(model, TEXT, SamplingConfig(**options))
    _, finish = decode(model, TEXT, SamplingConfig(**options, logprobs=0, logprobs_at="final"))
    assert finish.tokens == without.tokens
    # A block at the end may reach beyond the answer: open there, it is seen as it stands.
    whole = [*TEXT, *finish.tokens, *(MASK if token is None else token for token in finish.rest)]
    logits = forward(model, whole, attention)
    shift = attention.startswith("causal") or bool(fields.get("shifted"))
    wanted = [expected(logits[len(TEXT) + place - shift], token) for place, token in enumerate(finish.tokens)]
    assert finish.logprobs is not None
    assert [said.logprob for said in finish.logprobs] == pytest.approx(wanted, abs=1e-4)
    assert finish.usage.passes == {**without.usage.passes, "look": 1}
    assert finish.usage.rows > without.usage.rows


def forward(model: Model, tokens: list[int], attention: str) -> Tensor:
    """Logits [N, V] of transformers' own class with a mask of four dimensions."""
    network = model.denoiser.model  # type: ignore[attr-defined]
    place = torch.arange(len(tokens))
    seen = torch.ones(len(tokens), len(tokens), dtype=torch.bool)
    if attention.startswith("causal"):
        seen = seen.tril()
    elif attention == "block-causal":
        seen = place[None, :] // 4 <= place[:, None] // 4
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)[None, None]
    with torch.no_grad():
        found: Tensor = network(input_ids=torch.tensor([tokens]), attention_mask=mask).logits[0]
    return found


def test_autoregressive_modes_say_the_likelihood_both_ways(tiny: Model) -> None:
    """Settling and final alike, drafts or none; so do the answers of `diffusion` looked at once more."""
    found = {}
    for mode in ("ar", "speculative"):
        for at in ("settling", "final"):
            config = SamplingConfig(mode=mode, max_new_tokens=16, temperature=0.8, seed=3, logprobs=2, logprobs_at=at)
            finish = tiny.engine().generate([Request(PROMPT, config, frozenset())])[0]
            found[mode, at] = finish
    first = found["ar", "settling"]
    assert first.logprobs is not None
    for finish in found.values():
        assert finish.tokens == first.tokens
        assert finish.logprobs is not None
        assert [said.logprob for said in finish.logprobs] == pytest.approx(
            [said.logprob for said in first.logprobs], abs=1e-4
        )


def test_drafts_say_how_sure_each_tentative_token_is(tiny: Model) -> None:
    """Of guesses and of what is settled; None of what nobody spoke of; nothing unless asked."""
    for mode in ("diffusion", "speculative"):
        options = {"mode": mode, "max_new_tokens": 16, "temperature": 0.7, "seed": 1}
        events, _ = decode(tiny, PROMPT, SamplingConfig(**options, logprobs=0))
        drafts = [event for event in events if isinstance(event, Draft)]
        assert all(len(draft.confidences) == len(draft.guesses) == len(draft.tokens) for draft in drafts)
        pairs = [pair for draft in drafts for pair in zip(draft.guesses, draft.confidences, strict=True)]
        assert any(token is not None for token, _ in pairs)
        assert all(sure is not None and 0 <= sure <= 1 for token, sure in pairs if token is not None)
        events, _ = decode(tiny, PROMPT, SamplingConfig(**options))
        assert all(not event.confidences for event in events if isinstance(event, Draft))
        assert all(not event.logprobs for event in events if isinstance(event, Commit))


def test_a_settled_token_that_waits_has_the_probability_it_was_settled_with() -> None:
    """Until it is final, where its log-probability is the same."""
    model = made("llada", "bidirectional", {})
    config = SamplingConfig(mode="llada", max_new_tokens=8, logprobs=0)
    events, finish = decode(model, TEXT, config)
    assert finish.logprobs is not None
    final = [math.exp(said.logprob) for said in finish.logprobs if said.logprob is not None]
    last: list[float | None] = [None] * 8
    for event in events:
        if isinstance(event, Draft):
            begin = 8 - len(event.tokens)
            last[begin:] = event.confidences
    assert any(sure is not None for sure in last)
    for sure, wanted in zip(last, final, strict=True):
        assert sure is None or sure == pytest.approx(wanted)


def test_what_cannot_be_is_refused() -> None:
    """More alternatives than there may be, no numbers, a look without logprobs, a model that says nothing."""
    for wrong in ({"logprobs": -1}, {"logprobs": 21}, {"logprobs": True}, {"logprobs_at": "final"}):
        with pytest.raises(DllmError, match="logprobs"):
            SamplingConfig(**wrong)
    model = made("wedlm", "", {})
    with pytest.raises(DllmError, match=r"logprobs_at='final' does not fit tiny"):
        model.engine().admit(Request(TEXT, SamplingConfig(mode="wedlm", logprobs=1, logprobs_at="final")))


def test_more_alternatives_than_ids() -> None:
    """A vocabulary of 32 has 31 of them: 20 are told."""
    model = made("llada", "bidirectional", {})
    _, finish = decode(model, TEXT, SamplingConfig(mode="llada", max_new_tokens=2, logprobs=20))
    assert finish.logprobs is not None
    assert [len(said.top) for said in finish.logprobs] == [min(20, VOCABULARY - 1)] * 2


def test_tokens_that_move_keep_what_was_said_of_them() -> None:
    """DreamOn's hole grows and shrinks around them; drafts tell of what stands in it, too."""
    model = load("dreamon")
    asked = request("dreamon", [5, 6], (7, EOS), max_new_tokens=12, own={"min_gen_len": 6})
    config = asked.config.with_options(logprobs=1)
    events, finish = decode(model, list(asked.tokens), config, logits=True, suffix=asked.suffix)
    assert finish.logits is not None
    assert finish.logprobs is not None
    pairs = zip(finish.tokens, finish.logprobs, finish.logits, strict=True)
    assert all(said.logprob == pytest.approx(expected(logits, token), abs=1e-5) for token, said, logits in pairs)
    known = [
        pair
        for event in events
        if isinstance(event, Draft)
        for pair in zip(event.tokens, event.confidences, strict=True)
    ]
    assert any(token is not None for token, _ in known)
    assert all((token is None) == (sure is None) for token, sure in known)


@pytest.mark.parametrize("mode", ["diffusion_gemma", "flow_uniform"])
def test_uniform_noise_is_settled_with_a_probability_but_not_looked_at_again(gemma: Model, mode: str) -> None:
    """No position of a canvas of random tokens is known for sure."""
    config = SamplingConfig(mode=mode, max_new_tokens=6, steps=3, seed=1, logprobs=0)
    _, finish = decode(gemma, [3, 4, 5], config, logits=True)
    assert finish.logprobs is not None
    assert finish.logits is not None
    said = [one.logprob for one in finish.logprobs]
    assert said == [expected(logits, token) for token, logits in zip(finish.tokens, finish.logits, strict=True)]
    assert None not in said
    with pytest.raises(DllmError, match="'final' does not fit"):
        gemma.engine().admit(Request([3, 4, 5], config.with_options(logprobs_at="final")))
