"""Options: each changes the result or raises; limits, caches, other models, token counts."""

import logging
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseLanguageModel
from langchain_core.prompt_values import StringPromptValue
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from torch import Tensor

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import hookimpl
from dllm_plugins import load_model
from dllm_plugins import plugins
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.errors import PassError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import Preset
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

Make = Callable[..., ChatDLLM | DLLM]
Engine = Callable[..., Finish]


@pytest.fixture(params=["chat", "text"])
def make(request: pytest.FixtureRequest) -> Make:
    """Either class."""
    found: Make = request.getfixturevalue(request.param)
    return found


def said(model: BaseLanguageModel[Any], **options: Any) -> str:
    """The text of an answer."""
    answer = model.invoke("why?", **options)
    return answer if isinstance(answer, str) else str(answer.content)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 3},
        {"mode": "diffusion", "threshold": 0.02},
        {"mode": "diffusion", "block_length": 2, "steps": 1},
        {"mode": "diffusion", "rule": "factor", "factor": 20.0},
        {"temperature": 1.5, "seed": 3},
        {"temperature": 1.5, "seed": 3, "top_k": 2},
        {"temperature": 1.5, "seed": 3, "top_p": 0.2},
        {"stop": ["e"]},
    ],
)
def test_options_change_the_answer(make: Make, engine: Engine, options: dict[str, Any]) -> None:
    """As fields, in a call, and bound: the same answer, and the engine's."""
    named = {"max_new_tokens" if name == "max_tokens" else name: value for name, value in options.items()}
    expected = engine("why?", **named).text
    assert said(make(**options)) == said(make(), **options) == expected
    bound: Any = make().bind(**options)
    assert said(bound) == said(bound.with_config(tags=["mine"]).with_retry()) == expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"draft_length": 99}, "draft_length"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
    ],
)
def test_values_out_of_range(make: Make, options: dict[str, Any], words: str) -> None:
    """Refused when the model is made and in a call, under the name that was used."""
    with pytest.raises(ValueError, match=words):
        make(**options)
    with pytest.raises(DllmError, match=words):
        make().invoke("why?", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "float32"}, "when a model is made"),
        ({"streaming": True}, "streaming"),
        ({"max_new_tokens": 3}, "max_tokens"),
        ({"model": "dllm", "model_name": "dllm"}, "give one"),
        ({"mode": "ar", "draft_length": 3}, "draft_length"),
    ],
)
def test_arguments_a_call_does_not_take(make: Make, options: dict[str, Any], words: str) -> None:
    """Raised with what to do instead."""
    with pytest.raises(DllmError, match=words):
        make().invoke("why?", **options)
    with pytest.raises(DllmError, match=words):
        list(make().stream("why?", **options))


async def test_timeout_ends_the_request(make: Make) -> None:
    """With an error that names it; the row is freed."""
    model = make(timeout=1e-9)
    for ask in (model.invoke, lambda question: list(model.stream(question))):
        with pytest.raises(DllmError, match="timeout=1e-09"):
            ask("why?")
    with pytest.raises(DllmError, match="timeout=1e-09"):
        await model.ainvoke("why?")
    shared: Any = model._shared("dllm")
    assert shared._engine.active == ()
    assert said(model, timeout=60) == said(make())


async def test_retries_after_a_failed_pass(make: Make, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as `max_retries` says, before anything was handed out."""
    failures = 0
    forward = TriModeDenoiser.forward

    def failing(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        nonlocal failures
        if failures:
            failures -= 1
            raise MemoryError("too many rows")
        return forward(self, segments)

    expected = engine("why?").text
    monkeypatch.setattr(TriModeDenoiser, "forward", failing)
    failures = 2
    assert said(make(max_retries=2)) == expected
    failures = 1
    answer = await make().ainvoke("why?", max_retries=1)
    assert (answer if isinstance(answer, str) else answer.content) == expected
    failures = 2
    with pytest.raises(PassError, match="too many rows"):
        make(max_retries=1).invoke("why?")
    failures = 0
    stream = make(max_retries=5).stream("why?")
    next(stream)
    failures = 1
    with pytest.raises(PassError, match="too many rows"):
        list(stream)


async def test_cache(make: Make) -> None:
    """Hit for the same options only, whether they are fields, arguments or stop strings."""
    cache = InMemoryCache()
    settings: list[dict[str, Any]] = [
        {},
        {"mode": "diffusion"},
        {"temperature": 1.5, "seed": 1},
        {"temperature": 1.5, "seed": 2},
        {"stop": ["e"]},
    ]
    plain = [said(make(), **options) for options in settings]
    for _ in range(2):
        assert [said(make(cache=cache), **options) for options in settings] == plain
        assert [said(make(cache=cache, **options)) for options in settings] == plain
        answers = [await make(cache=cache).ainvoke("why?", **options) for options in settings]
        assert [answer if isinstance(answer, str) else answer.content for answer in answers] == plain
    unseeded = make(cache=cache, temperature=2.0)
    assert said(unseeded) == said(unseeded)


async def test_rate_limiter(make: Make) -> None:
    """Requests wait for it."""
    limiter = InMemoryRateLimiter(requests_per_second=20, check_every_n_seconds=0.01, max_bucket_size=1)
    model = make(rate_limiter=limiter, max_tokens=1)
    began = time.monotonic()
    model.batch(["why?"] * 3)
    await model.abatch(["why?"] * 3)
    list(model.stream("why?"))
    assert time.monotonic() - began > 0.25


def test_another_model_in_a_call(make: Make, tiny: Model) -> None:
    """`model=` is loaded, used and named; traces name it too."""

    class Other:
        @hookimpl
        def register_models(self) -> list[Preset]:
            def load(options: LoadOptions) -> Model:
                return load_model("dllm", base=options.base, denoiser=options.denoiser, dtype=options.dtype)

            return [Preset("other", "another name", load)]

    name = plugins.manager().register(Other())
    try:
        result = make().generate_prompt([StringPromptValue(text="why?")], model="other").generations[0][0]
        info: Any = result.message.response_metadata if hasattr(result, "message") else result.generation_info
        assert info["model_name"] == "other"
        assert make()._get_ls_params(model="other")["ls_model_name"] == "other"
    finally:
        plugins.manager().unregister(name=name)


def test_parameters_for_tracing(make: Make) -> None:
    """What the call says goes before what the model says."""
    model = make(stop=["x"], temperature=0.5)
    assert model._get_ls_params() == {
        "ls_provider": "dllm",
        "ls_model_name": "dllm",
        "ls_model_type": "chat" if isinstance(model, ChatDLLM) else "llm",
        "ls_temperature": 0.5,
        "ls_max_tokens": 20,
        "ls_stop": ["x"],
    }
    changed = model._get_ls_params(stop=["y"], temperature=1.0, max_tokens=3)
    assert (changed["ls_stop"], changed["ls_temperature"], changed["ls_max_tokens"]) == (["y"], 1.0, 3)


def test_tokens_are_counted_with_the_models_own_tokenizer(make: Make, tiny: Model) -> None:
    """Not GPT-2's; a chat's tokens include its template."""
    model = make()
    assert model.get_token_ids("why?") == tiny.tokenizer.encode("why?", add_special_tokens=False)
    assert model.get_num_tokens("why?") == 4
    if isinstance(model, ChatDLLM):
        answer = model.invoke("why?")
        assert answer.usage_metadata is not None
        messages = StringPromptValue(text="why?").to_messages()
        assert model.get_num_tokens_from_messages(messages) == answer.usage_metadata["input_tokens"]
        with pytest.raises(DllmError, match="7 is no tool"):
            model.get_num_tokens_from_messages(messages, tools=[7])
    assert make(custom_get_token_ids=lambda text: [1]).get_num_tokens("why?") == 1


def test_configurable_fields(make: Make, engine: Engine) -> None:
    """`configurable_fields` works, as each option is a field."""
    model = make().configurable_fields(max_tokens=ConfigurableField(id="length"))
    answer = model.invoke("why?", config={"configurable": {"length": 3}})
    assert (answer if isinstance(answer, str) else answer.content) == engine("why?", max_new_tokens=3).text


def test_a_key_is_not_needed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is taken, as tools pass one to every model, and the log says that it has no use."""
    with caplog.at_level(logging.WARNING):
        model = make(api_key="secret")
    assert "api_key is not used" in caplog.text
    assert "secret" not in repr(model)


def test_neither_class_is_loaded_by_langchain(make: Make) -> None:
    """It loads classes of its own list only."""
    assert not make().is_lc_serializable()


def test_an_answer_that_the_context_ends(make: Make) -> None:
    """`finish_reason` says so, whole and streamed."""
    prompt = "x" * 480
    for asked, reason in ((200, "context"), (2, "length")):
        model = make(max_tokens=asked, mode="ar")
        if isinstance(model, ChatDLLM):
            assert model.invoke(prompt).response_metadata["finish_reason"] == reason
            *_, last = model.stream(prompt)
            assert last.response_metadata["finish_reason"] == reason
        else:
            info = model.generate([prompt]).generations[0][0].generation_info or {}
            assert info["finish_reason"] == reason
