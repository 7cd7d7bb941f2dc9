"""What a server answers is what this process would: events, statistics, errors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Gap
from dllm_plugins import Grammar
from dllm_plugins import JsonSchema
from dllm_plugins import Regex
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import calling
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.messages import Dialect
from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel
from dllm_plugins.text.said import openai_shape
from dllm_plugins.tools.tool import Tool
from dllm_plugins.traces import Recorder
from dllm_plugins.traces import page
from dllm_plugins.warm.model import WarmShared
from dllm_plugins.warm.opening import open_model

from .conftest import QUESTION
from .conftest import Serve
from .conftest import told
from .conftest import untimed

Ask = Callable[[Any], Request]
TOOL = Tool("add", "adds", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
DIALECT = Dialect({"max_new_tokens": "--most", "mode": "--how"})


def chat(*tools: Tool, choice: str = "auto", **options: Any) -> Ask:
    """A question."""
    config = {"max_new_tokens": 12, **options}
    return lambda model: model.chat_request(QUESTION, SamplingConfig(**config), tools, choice)


def gaps(**options: Any) -> Ask:
    """Two gaps, one of them held to digits."""
    template = Template("It is ", Gap(max_tokens=4), " or ", Gap(tokens=2, constraint=Regex("[0-9]+")), ".")
    return lambda model: model.fill_request(template, **options)


def text(text: str, special: bool = True) -> Ask:
    """A text that goes on."""
    return lambda model: model.text_request(text, SamplingConfig(max_new_tokens=6), special=special)


@pytest.mark.parametrize(
    "ask",
    [
        chat(),
        chat(temperature=0.8, seed=3, logprobs=2),
        chat(mode="diffusion", block_length=8, logprobs=1, logprobs_at="final"),
        chat(mode="ar", stop=("e", "\n\n"), bad_words=("a", (5, 6)), repetition_penalty=1.2),
        chat(constraint=Regex("[a-z]{3,8}")),
        chat(constraint=JsonSchema({"$ref": "#/$defs/n", "$defs": {"n": {"enum": [1, 2.5, "x", ["\U0001f600"]]}}})),
        chat(constraint=Grammar('start: "a" "b"+'), mode="diffusion"),
        chat(TOOL, choice="add", max_new_tokens=80),
        chat(TOOL, max_new_tokens=80, temperature=0.7, seed=5),
        gaps(mode="diffusion", seed=1),
        gaps(mode="diffusion", logprobs=1),
        text("Once upon"),
        text("Once upon", special=False),
    ],
)
def test_events(warm: WarmShared, held: SharedModel, ask: Ask) -> None:
    """All of them, in their order, with everything they hold."""
    found = [told(event) for event in warm.stream(ask(warm.model))]
    held.prefixes.clear()
    expected = [told(event) for event in held.stream(ask(held.model))]
    assert found == expected
    # These two take no part in a comparison.
    assert found[-1].logprobs == expected[-1].logprobs  # type: ignore[union-attr]
    assert found[-1].rest == expected[-1].rest  # type: ignore[union-attr]
    said = getattr(expected[-1], "logprobs", None) or ()
    assert openai_shape(said, warm.model.tokenizer) == openai_shape(said, held.model.tokenizer)


def test_a_routed_answer(warm: WarmShared, held: SharedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice is the server's, which is what it would have said beforehand; modes take turns there."""
    monkeypatch.setenv("DLLM_ROUTES", str(tmp_path / "routes.json"))
    told = held.model.engine().router.explain(chat(mode="auto", max_new_tokens=60)(held.model), 1)
    *_, found = warm.stream(chat(mode="auto", max_new_tokens=60)(warm.model))
    held.prefixes.clear()
    *_, expected = held.stream(chat(mode="ar", max_new_tokens=60)(held.model))
    assert isinstance(found, Finish)
    assert isinstance(expected, Finish)
    assert (found.tokens, found.usage.mode) == (expected.tokens, told.mode)
    assert (found.usage.route or "").startswith(str(told))
    modes = [stretch.mode for stretch in found.usage.stretches or ()]
    assert modes[:2] == (["speculative", "ar"] if len(found.tokens) > 40 else [])


async def test_events_in_asyncio(warm: WarmShared, held: SharedModel) -> None:
    """The same."""
    ask = chat(temperature=0.8, seed=3)
    found = [told(event) async for event in warm.astream(ask(warm.model))]
    held.prefixes.clear()
    assert found == [told(event) for event in held.stream(ask(held.model))]


def test_a_long_prompt(warm: WarmShared, held: SharedModel) -> None:
    """Whoever is alone has it read in one pass, as without a server."""
    ask: Ask = lambda model: model.text_request("a" * 400, SamplingConfig(max_new_tokens=2))  # noqa: E731
    *_, found = warm.stream(ask(warm.model))
    held.prefixes.clear()
    *_, expected = held.stream(ask(held.model))
    assert told(found) == told(expected)


@pytest.mark.parametrize(
    "ask",
    [
        chat(mode="none-such"),
        chat(mode="ar", threshold=0.5),
        chat(top_k=3),
        chat(rule="none-such", mode="diffusion"),
        chat(rule="entropy_bound", rule_options={"bund": [1, {"$": 2}]}, mode="diffusion"),
        chat(constraint=Regex("(")),
        chat(TOOL, choice="none-such"),
        gaps(mode="ar"),
        gaps(mode="diffusion", max_new_tokens=3),
        text(""),
        text("a" * 5000),
        lambda model: model.chat_request([], SamplingConfig()),
        lambda model: model.chat_request([{"role": "user"}], SamplingConfig()),
        lambda model: model.chat_request(QUESTION, SamplingConfig(), thinking=True),
    ],
)
def test_errors(warm: WarmShared, held: SharedModel, ask: Ask) -> None:
    """The class, and the message in the words of whoever asks."""
    errors = list[DllmError]()
    for shared in (warm, held):
        with pytest.raises(DllmError) as raised, calling(DIALECT):
            list(shared.stream(ask(shared.model)))
        errors.append(raised.value)
    found, expected = errors
    assert type(found) is type(expected)
    assert str(found) == str(expected)


def test_facts(warm: WarmShared, held: SharedModel) -> None:
    """What hosts look at."""
    for name in ("name", "context", "chats", "thinks"):
        assert getattr(warm.model, name) == getattr(held.model, name)
    assert warm.model.call_form() == held.model.call_form()
    assert warm.model.encode_chat(QUESTION, (TOOL,)) == held.model.encode_chat(QUESTION, (TOOL,))
    assert warm.model.encode_text("a<s>b", special=False) == held.model.encode_text("a<s>b", special=False)
    with pytest.raises(DllmError, match="empty"):
        warm.model.encode_chat([])


def test_traces(warm: WarmShared, held: SharedModel) -> None:
    """The page that replays the passes."""
    pages = list[str]()
    for shared in (warm, held):
        held.prefixes.clear()
        recorder = Recorder(shared.model.tokenizer)
        for event in shared.stream(chat(mode="diffusion", logprobs=0)(shared.model)):
            recorder.take(event)
        pages.append(untimed(page(recorder.trace(QUESTION, "dllm"))))
    assert pages[0] == pages[1]


def test_more_than_the_queue_takes(serve: Serve, loading: Loading, held: SharedModel, nothing_here: None) -> None:
    """Is answered: nobody of this user's is turned away."""
    serve(rows=1, waiting=1)
    found = open_model(loading.place, dict(loading.options))
    asked = [found.model.chat_request(QUESTION, SamplingConfig(max_new_tokens=2))] * 4
    ends = [event for _, event in found.stream_batch(asked) if isinstance(event, Finish)]
    assert len({end.text for end in ends}) == 1
    assert len(ends) == 4


def test_several_at_once(warm: WarmShared, held: SharedModel) -> None:
    """Answers to several requests of a call, and of several clients that take turns."""
    configs = SamplingConfig(max_new_tokens=8, temperature=0.9, seed=1).several(3)
    ask = [warm.model.chat_request(QUESTION, config) for config in configs]
    expected = [held.generate([held.model.chat_request(QUESTION, config)])[0].text for config in configs]
    ends = {place: event for place, event in warm.stream_batch(ask) if isinstance(event, Finish)}
    assert [ends[place].text for place in range(3)] == expected
    streams = [warm.stream(request) for request in ask]
    last = dict[int, Event]()
    while not all(isinstance(last.get(place), Finish) for place in range(3)):
        last |= {place: event for place, stream in enumerate(streams) if (event := next(stream, None)) is not None}
    assert [getattr(last[place], "text", None) for place in range(3)] == expected
