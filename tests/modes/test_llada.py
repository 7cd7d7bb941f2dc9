"""LLaDA's and Fast-dLLM's sampler: defects shown both ways, caches, suppressed and late tokens, infilling."""

from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.check import CaseModels
from dllm_plugins.conformance.check import translate
from dllm_plugins.conformance.compare import compare
from dllm_plugins.conformance.run import run
from dllm_plugins.errors import OptionError

from ..golden.cases import CLONED

FACTOR = Case(CLONED["fastdllm_factor"])
DEFECTS = [setting for setting in FACTOR.settings if setting.quirk]
MASK = 236


@pytest.fixture(scope="module")
def model() -> Model:
    """A tiny LLaDA."""
    return load_model(str(CLONED["llada_dense"] / "checkpoint"), mask_id=MASK, dtype="float32", device="cpu")


def decode(model: Model, prompt: list[int], suffix: tuple[int, ...] = (), **options: Any) -> Finish:
    """One answer, to its end."""
    return model.engine().generate([Request(prompt, SamplingConfig(**options), frozenset(), suffix=suffix)])[0]


@pytest.mark.parametrize("setting", DEFECTS, ids=lambda setting: setting.name)
def test_the_last_candidate_both_ways(setting: Setting) -> None:
    """The reference commits it below its limit; ours does so only when told to."""
    play = translate(FACTOR, setting)
    model = CaseModels(FACTOR).get()
    mask = FACTOR.about["mask_id"]
    assert compare(setting, play, run(model, play), mask)
    told = [
        replace(request, config=request.config.with_options(preset_options={"last_candidate": True}))
        for request in play.requests
    ]
    as_recorded = replace(play, requests=told)
    assert not compare(setting, as_recorded, run(model, as_recorded), mask)


def test_the_last_candidate_saves_passes(model: Model) -> None:
    """It is what the option says, on any checkpoint."""
    options: dict[str, Any] = {"mode": "fast_dllm", "max_new_tokens": 32, "block_length": 8, "factor": 1.5}
    right = decode(model, [5, 6, 7], **options)
    hasty = decode(model, [5, 6, 7], **options, preset_options={"last_candidate": True})
    assert hasty.usage.total_passes < right.usage.total_passes


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_refreshing_every_pass_is_exact(model: Model, kind: str) -> None:
    """A whole pass each time; the statistics still say approximate, since they cannot know."""
    options: dict[str, Any] = {"max_new_tokens": 24, "block_length": 8, "steps": 12}
    whole = decode(model, [5, 6, 7, 8], **options)
    always = decode(model, [5, 6, 7, 8], **options, approximate_cache=kind, refresh=1)
    never = decode(model, [5, 6, 7, 8], **options, approximate_cache=kind)
    assert always.tokens == whole.tokens
    assert always.usage.rows == whole.usage.rows
    assert (whole.usage.cache, always.usage.cache, never.usage.cache) == ("none", "approximate", "approximate")
    assert never.usage.passes == {"refresh": 3, "predict": 9}
    assert never.usage.rows < whole.usage.rows
    sometimes = decode(model, [5, 6, 7, 8], **options, approximate_cache=kind, refresh=2)
    assert sometimes.usage.passes == {"refresh": 6, "predict": 6}


def test_dual_forwards_less_than_prefix(model: Model) -> None:
    """The block alone, and not the masks behind it."""
    options: dict[str, Any] = {"max_new_tokens": 24, "block_length": 8, "steps": 12}
    rows = [decode(model, [5], **options, approximate_cache=kind).usage.rows for kind in ("prefix", "dual")]
    assert rows == [3 * 25 + 3 * (24 + 16 + 8), 3 * 25 + 9 * 8]


def test_suppressed_and_late_tokens(model: Model) -> None:
    """One kind never comes, the other comes last."""
    options: dict[str, Any] = {"max_new_tokens": 16, "block_length": 16, "steps": 16}
    plain = decode(model, [5, 6, 7], **options)
    common = max(set(plain.tokens), key=plain.tokens.count)
    without = decode(model, [5, 6, 7], **options, preset_options={"suppress_tokens": [common]})
    assert common in plain.tokens
    assert common not in without.tokens
    late = decode(model, [5, 6, 7], **options, preset_options={"late_tokens": [common]})
    assert late.tokens != plain.tokens


@pytest.mark.parametrize("kind", [None, "prefix", "dual"])
def test_infilling(model: Model, kind: str | None) -> None:
    """What follows the gap is seen, and is not part of the answer."""
    options: dict[str, Any] = {"max_new_tokens": 8, "block_length": 8, "steps": 8, "approximate_cache": kind}
    one, other = (decode(model, [5, 6, 7], suffix, **options) for suffix in ((9, 10, 11), (99, 98, 97)))
    assert len(one.tokens) == len(other.tokens) == 8
    assert one.tokens != other.tokens
    assert one.rest == (9, 10, 11)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"refresh": 3}, "approximate_cache"),
        ({"approximate_cache": "dual", "guidance": 1.0}, "guidance"),
        ({"preset_options": {"alg": "entropy"}}, "alg='entropy'"),
        ({"preset_options": {"steps": 3}}, "steps=3"),
        ({"preset_options": {"suppress_tokens": "x"}}, "suppress_tokens"),
        ({"steps": 4, "factor": 1.0}, "factor=1.0"),
        ({"mode": "sdar"}, "unknown mode 'sdar'"),
    ],
)
def test_bad_options(model: Model, options: dict[str, Any], words: str) -> None:
    """Each is refused when the request comes, by its name."""
    with pytest.raises(OptionError, match=words):
        model.engine().admit(Request([5], SamplingConfig(**options)))
    assert model.engine().active == ()
