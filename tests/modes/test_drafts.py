"""Layouts of drafts, fixed and chosen: the text is that of `ar` whatever is chosen, and what was chosen is told."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest

from dllm_plugins import Engine
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.denoisers.costs import Costs
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.drafting.layout import PassLayout
from dllm_plugins.drafting.planner import ChosenPlan
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Finish

from .knowing import KnowingDenoiser
from .tiny_models import says
from .tiny_models import scripted_model

#: Passes as good as free, as dear as their rows, dearer than that, and with steps.
CURVES: list[dict[int, float]] = [
    {1: 1.0},
    {1: 1.0, 2: 2.0},
    {1: 1.0, 2: 5.0, 3: 25.0},
    {1: 10.0, 3: 10.0, 4: 13.0, 8: 13.5, 9: 30.0},
]
LOOP = [7, 8, 9, 10, 11, 12] * 4
PROMPTS = [[5], LOOP, list(range(10, 60))]
SAMPLING: list[dict[str, Any]] = [{}, {"temperature": 0.7, "seed": 1}, {"temperature": 1.1, "seed": 2, "top_k": 5}]


def _decoded(engine: Engine, prompts: list[list[int]], **options: Any) -> list[Finish]:
    options = {"max_new_tokens": 24, **options}
    return engine.generate([Request(prompt, SamplingConfig(**options)) for prompt in prompts])


def _knowing(tiny: Model, text: list[int], fault: int) -> Engine:
    assert isinstance(tiny.denoiser, TriModeDenoiser)
    return Engine(KnowingDenoiser(tiny.denoiser, text, fault), tiny.tokenizer, plugins.modes())


@pytest.mark.parametrize("sampling", SAMPLING, ids=["greedy", "0.7", "top_k"])
def test_chosen_layouts_say_what_ar_says(tiny: Model, sampling: dict[str, Any]) -> None:
    """On any curve, from any source, alone and in company; tokens, reason and text."""
    engine = tiny.engine()
    expected = [(found.tokens, found.reason) for found in _decoded(engine, PROMPTS, mode="ar", **sampling)]
    for drafts in (None, "denoiser", "prompt_lookup"):
        for costs in CURVES if drafts is None else CURVES[:1]:
            options = {"preset_options": {"costs": costs}, **sampling} | ({"drafts": drafts} if drafts else {})
            together = _decoded(engine, PROMPTS, **options)
            assert [(found.tokens, found.reason) for found in together] == expected
    alone = [_decoded(engine, [prompt], **sampling)[0] for prompt in PROMPTS]
    assert [(found.tokens, found.reason) for found in alone] == expected


def test_any_layout_says_what_ar_says(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only those that pay: groups behind some candidates, of unlike sizes, or behind none."""
    layouts = cycle(
        [
            PassLayout(0, {0: 4}),
            PassLayout(3, {3: 1, 0: 2}),
            PassLayout(2, {1: 3}),
            PassLayout(1),
            PassLayout(4, {2: 2, 4: 4, 1: 1}),
        ]
    )

    def odd(self: ChosenPlan, drafts: list[Any], *_: Any) -> PassLayout:
        found = next(layouts)
        verified = min(found.verified, len(drafts))
        return PassLayout(verified, {place: size for place, size in found.groups.items() if place <= verified})

    monkeypatch.setattr(ChosenPlan, "layout", odd)
    monkeypatch.setattr(ChosenPlan, "go_on", lambda *_: True)
    sampling = {"temperature": 1.0, "seed": 11}
    [expected] = _decoded(tiny.engine(), [[1, 40, 41, 42]], mode="ar", **sampling)
    engine = _knowing(tiny, [1, 40, 41, 42, *expected.tokens], fault=4)
    for drafts in ("auto", "denoiser"):
        options = {"drafts": drafts, "preset_options": {"costs": {1: 1.0}}, **sampling}
        [found] = _decoded(engine, [[1, 40, 41, 42]], **options)
        assert found.tokens == expected.tokens
        counts = found.usage.drafts or {}
        assert 0 < counts["denoiser_accepted"] < counts["denoiser_verified"]


def test_good_drafts_are_used_where_rows_are_cheap(tiny: Model) -> None:
    """Three right drafts in a row save passes, and of two curves the flat one has the wider layouts."""
    sampling = {"temperature": 1.0, "seed": 11}
    [expected] = _decoded(tiny.engine(), [[1, 40, 41, 42]], mode="ar", **sampling)
    engine = _knowing(tiny, [1, 40, 41, 42, *expected.tokens], fault=4)
    usages = []
    for costs in ({1: 10.0, 64: 11.0}, {1: 10.0, 2: 12.0, 3: 14.0}):
        [found] = _decoded(engine, [[1, 40, 41, 42]], preset_options={"costs": costs}, **sampling)
        assert found.tokens == expected.tokens
        usages.append(found.usage)
    flat, steep = usages
    assert flat.total_passes < steep.total_passes < len(expected.tokens)
    assert flat.rows > steep.rows


@pytest.mark.parametrize("length", [1, 2, 3, 17])
def test_short_answers_and_stops_end_where_ars_do(tiny: Model, length: int) -> None:
    """At the limit, and at a stop id that stands among the drafts; nothing behind it is told."""
    engine = tiny.engine()
    for prompt in PROMPTS:
        [expected] = _decoded(engine, [prompt], mode="ar", max_new_tokens=length)
        [found] = _decoded(engine, [prompt], max_new_tokens=length)
        assert (found.tokens, found.reason) == (expected.tokens, expected.reason)
        stops = frozenset(expected.tokens[-1:])
        config = SamplingConfig(max_new_tokens=40)
        requests = [Request(prompt, config.with_options(mode=mode), stops) for mode in ("ar", "speculative")]
        one, other = engine.generate(requests)
        assert (one.tokens, one.reason, one.stop_token) == (other.tokens, other.reason, other.stop_token)
        assert one.reason == "eos"


def test_dear_rows_cost_nothing(tiny: Model) -> None:
    """Where rows cost more than they yield, passes are those of `ar`: as many, over as many rows."""
    engine = tiny.engine()
    [plain] = _decoded(engine, [PROMPTS[0]], mode="ar")
    [found] = _decoded(engine, [PROMPTS[0]], preset_options={"costs": {1: 1.0, 2: 5.0, 3: 25.0}})
    assert (found.usage.total_passes, found.usage.rows) == (plain.usage.total_passes, plain.usage.rows)
    assert found.usage.drafts == dict.fromkeys(found.usage.drafts or (), 0)


@pytest.mark.parametrize("options", [{"preset_options": {"costs": {1: 1.0}}}, {"draft_length": 8}, {}])
def test_repeated_text_is_copied(options: dict[str, Any]) -> None:
    """An answer in a loop takes few passes by look-up alone, without any open row."""
    model = scripted_model(lambda seen, place: says((seen[place] + 1) % 6), "speculative", "ar")
    [plain] = _decoded(model.engine(), [[5]], mode="ar", max_new_tokens=100)
    [found] = _decoded(model.engine(), [[5]], drafts="prompt_lookup", max_new_tokens=100, **options)
    assert found.tokens == plain.tokens
    counts = found.usage.drafts
    assert counts is not None
    assert counts["open_rows"] == counts["denoiser_verified"] == 0
    assert counts["prompt_lookup_accepted"] > 70
    assert found.usage.total_passes <= 100 - counts["prompt_lookup_accepted"] + 1


def test_a_fixed_layout_is_fixed(tiny: Model) -> None:
    """As many open rows behind each of as many candidates, whatever passes cost."""
    [found] = _decoded(tiny.engine(), [[5]], draft_length=3, max_new_tokens=30)
    usage = found.usage
    assert usage.drafts is not None
    assert usage.drafts["prompt_lookup_verified"] == 0
    # In mid-answer a pass has 1 + 3 clean rows, and 4 groups of 3.
    assert usage.rows / usage.total_passes > 8
    assert usage.as_dict()["drafts"] == usage.drafts


def test_modes_that_draft_nothing_tell_nothing(tiny: Model) -> None:
    """Neither `ar` nor `diffusion`."""
    for mode in ("ar", "diffusion"):
        [found] = _decoded(tiny.engine(), [[5]], mode=mode, max_new_tokens=4)
        assert found.usage.drafts is None
        assert "drafts" not in found.usage.as_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drafts": "auto", "draft_length": 3}, "leave it or draft_length=3 out"),
        ({"draft_length": 3, "preset_options": {"costs": {1: 2.0}}}, "leave it or draft_length=3 out"),
        ({"drafts": "telepathy"}, "telepathy"),
        ({"drafts": "denoiser", "mode": "ar"}, "drafts"),
        ({"preset_options": {"costs": {}}}, "costs"),
        ({"preset_options": {"costs": {0: 1.0}}}, "costs"),
        ({"preset_options": {"costs": {1: -1.0}}}, "costs"),
        ({"preset_options": {"costs": {1: float("inf")}}}, "costs"),
        ({"preset_options": {"costs": {10**9: 1.0}}}, "costs"),
    ],
)
def test_what_cannot_be_honoured_is_refused(tiny: Model, options: dict[str, Any], words: str) -> None:
    """Each message names the option."""
    with pytest.raises(OptionError, match=words):
        _decoded(tiny.engine(), [[5]], **options)


def test_costs_are_asked_for_only_where_a_layout_is_chosen(
    load_tiny: Callable[[str], Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for `ar`, nor for a fixed layout, nor where the request says what passes cost."""
    asked: list[str] = []

    def costs_of(denoiser: Any) -> Costs:
        asked.append(denoiser.form())
        return Costs.of_clean({1: 1.0})

    monkeypatch.setattr("dllm_plugins.drafting.watched.costs_of", costs_of)
    engine = load_tiny("float32").engine()
    for options in ({"mode": "ar"}, {"draft_length": 2}, {"preset_options": {"costs": {1: 2.0}}}):
        _decoded(engine, [[5]], max_new_tokens=3, **options)
        assert not asked
    _decoded(engine, [[5]], max_new_tokens=3)
    assert len(asked) == 1
    assert "CompiledDecoder, float32 on cpu" in asked[0] or "float32 on cpu" in asked[0]
