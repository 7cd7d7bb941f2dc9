"""Mode `alternating` of one model: the same tokens as its modes give by themselves, each over what stands there."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.sharing import SharedModel

NEVER: frozenset[int] = frozenset()
PLAN = (("speculative", 5), ("diffusion", 9), ("ar", 3))
PROMPTS = ([5], [7, 8, 9], [*range(60, 100)])


def asked(prompt: list[int], plan: Any = PLAN, **options: Any) -> Request:
    given = {"max_new_tokens": 40, "mode": "alternating", **options}
    given["preset_options"] = {"plan": plan, **given.get("preset_options", {})}
    return Request(prompt, SamplingConfig(**given), stop_ids=NEVER)


def by_hand(model: Model, prompt: list[int], plan: Any = PLAN, **options: Any) -> tuple[int, ...]:
    """A request for each stretch, of an engine that keeps nothing."""
    said: list[int] = []
    turns = cycle(plan)
    while len(said) < 40:
        mode, count = next(turns)
        config = SamplingConfig(mode=mode, max_new_tokens=min(count, 40 - len(said)), **options)
        said += model.engine().generate([Request([*prompt, *said], config, stop_ids=NEVER)])[0].tokens
    return tuple(said)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 5}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_by_hand(load_tiny: Callable[[str], Model], dtype: str, sampling: dict[str, Any]) -> None:
    """Rows in unlike stretches share passes; every token is forwarded once to be cached."""
    model = load_tiny(dtype)
    found = model.engine().generate([asked(prompt, **sampling) for prompt in PROMPTS])
    for prompt, one in zip(PROMPTS, found, strict=True):
        assert one.tokens == by_hand(model, prompt, **sampling)
        told = one.usage.stretches or ()
        assert [(part.mode, part.end - part.begin) for part in told] == [
            *PLAN,
            *PLAN,
            ("speculative", 5),
            ("diffusion", 1),
        ]
        assert [part.begin for part in told] == [0, *(part.end for part in told[:-1])]
        assert {part.model for part in told} == {"dllm"}
        assert one.usage.passes["turn"] == len(told) - 1
    clean = model.engine().generate([asked([5], (("ar", 7), ("ar", 3)))])[0]
    assert clean.usage.rows == 40
    assert clean.usage.drafts is None


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 4}, {"repetition_penalty": 1.4}])
def test_lossless_modes_in_turns_are_lossless(tiny: Model, sampling: dict[str, Any]) -> None:
    """The text of `ar`, with the same log-probabilities; counts of drafts are summed up."""
    plan = (("speculative", 7), ("ar", 2))
    options = {"logprobs": 1, **sampling}
    [found] = tiny.engine().generate([asked([7, 8], plan, draft_length=2, **options)])
    config = SamplingConfig(mode="ar", max_new_tokens=40, **options)
    [plain] = tiny.engine().generate([Request([7, 8], config, stop_ids=NEVER)])
    assert (found.tokens, found.logprobs) == (plain.tokens, plain.logprobs)
    assert (found.usage.drafts or {})["denoiser_verified"] > 10


def test_streams_and_company(tiny: Model) -> None:
    """Sampled, alone and with others, in four threads: the same; what is committed never changes."""
    shared = SharedModel(tiny)
    requests = [asked(prompt, temperature=0.7, seed=number) for number, prompt in enumerate(PROMPTS)]
    expected = [tiny.engine().generate([one])[0].tokens for one in requests]

    def streamed(request: Request) -> tuple[int, ...]:
        events = list(shared.stream(request))
        said = [token for event in events if isinstance(event, Commit) for token in event.tokens]
        assert any(isinstance(event, Draft) and None in event.tokens for event in events)
        assert isinstance(events[-1], Finish)
        assert tuple(said) == events[-1].tokens
        return tuple(said)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(streamed, requests * 2)) == expected * 2


def test_a_constraint_and_a_stop_string_hold_across_turns(tiny: Model) -> None:
    plan, prompt = (("ar", 4), ("diffusion", 6)), tiny.encode_text("how are you?")
    held = SamplingConfig(
        mode="alternating",
        max_new_tokens=24,
        constraint=Regex("([a-c]{3}-){4}end"),
        preset_options={"plan": plan},
    )
    [found] = tiny.engine().generate([Request(prompt, held)])
    assert found.reason == "eos"
    assert found.text.endswith("-end")
    assert len(found.text) == 19
    cut = held.with_options(stop=[found.text[7:12]])
    [stopped] = tiny.engine().generate([Request(prompt, cut)])
    assert (stopped.reason, stopped.text) == ("stop", found.text[: found.text.index(found.text[7:12])])
    assert (stopped.usage.stretches or ())[-1].end == len(stopped.tokens)


def test_doubt_holds_a_turn_back(tiny: Model) -> None:
    """Above the most entropy the mode before goes on, and the statistics say so; none is ever that certain."""
    plan = (("ar", 4), ("diffusion", 8))
    [doubtful] = tiny.engine().generate([asked([5], plan, preset_options={"most_entropy": 0.0})])
    assert {part.mode for part in doubtful.usage.stretches or ()} == {"ar"}
    assert "nats, above 0" in (doubtful.usage.stretches or ())[1].why
    [plain] = tiny.engine().generate([Request([5], SamplingConfig(mode="ar", max_new_tokens=40), stop_ids=NEVER)])
    assert doubtful.tokens == plain.tokens
    [certain] = tiny.engine().generate([asked([5], plan, preset_options={"most_entropy": 99.0})])
    assert certain.tokens == tiny.engine().generate([asked([5], plan)])[0].tokens


def test_without_a_plan(tiny: Model) -> None:
    """It opens, denoises the middle, and goes on; the next turn of the chat finds its prefix."""
    shared = SharedModel(tiny)
    config = SamplingConfig(mode="alternating", max_new_tokens=60)
    [found] = shared.generate([Request([5, 6, 7], config, stop_ids=NEVER)])
    assert [(one.mode, one.end) for one in found.usage.stretches or ()] == [
        ("speculative", 16),
        ("diffusion", 48),
        ("speculative", 60),
    ]
    [more] = shared.generate([Request([5, 6, 7, *found.tokens, 9], config, stop_ids=NEVER)])
    assert more.usage.cached_tokens >= 58


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"plan": [["llada", 3]]}, "plan in preset_options has mode 'llada'"),
        ({"plan": [["alternating", 3]]}, "those of dllm that take turns: speculative, diffusion, ar"),
        ({"plan": []}, "plan"),
        ({"plan": [["ar", 0]]}, "greater than or equal to 1"),
        ({"plan": [["ar", 3]], "most_entropy": -1}, "most_entropy"),
    ],
)
def test_what_is_no_plan(tiny: Model, options: dict[str, Any], error: str) -> None:
    with pytest.raises(OptionError, match=error):
        tiny.engine().admit(Request([5], SamplingConfig(mode="alternating", preset_options=options)))


def test_options_that_nobody_honours(tiny: Model) -> None:
    with pytest.raises(
        OptionError, match=r"threshold=0\.5 has no effect on modes that take turns here: speculative, ar"
    ):
        tiny.engine().admit(asked([5], (("speculative", 3), ("ar", 3)), threshold=0.5))
    with pytest.raises(OptionError, match="steps=9 cannot be met"):
        tiny.engine().admit(asked([5], steps=9))
    with pytest.raises(OptionError, match="fills no gaps"):
        tiny.engine().admit(Request([5], SamplingConfig(mode="alternating", max_new_tokens=4), suffix=[7]))
