"""Conversations: the next turn forwards only its new rows, and says what a fresh process would say."""

import json
from collections.abc import Callable
from typing import Any

import llm
import pytest
from click.testing import Result

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from llm_dllm.loading import loaded_model

Run = Callable[..., Result]
OPTIONS = [{}, {"mode": "ar"}, {"mode": "diffusion"}, {"temperature": 0.9, "seed": 3}]


@pytest.fixture(autouse=True)
def nothing_kept(tiny_llm: None) -> None:
    """Other tests of this process may have asked the same."""
    loaded_model().prefixes.clear()


def fresh(questions: list[str], texts: list[str], **options: Any) -> Finish:
    """The last turn without any kept prefix, as a process that has just begun would answer it."""
    turns = [
        {"role": role, "content": text}
        for question, answer in zip(questions, [*texts, ""], strict=True)
        for role, text in (("user", question), ("assistant", answer))
    ]
    model = loaded_model().model
    request = Request(model.encode_chat(turns[:-1]), SamplingConfig(max_new_tokens=12, **options))
    return model.engine().generate([request])[0]


def check(questions: list[str], texts: list[str], figures: list[dict[str, Any]], **options: Any) -> None:
    """Each turn against a fresh engine: same text and passes, fewer rows by what was cached."""
    assert figures[0]["cached_tokens"] == 0
    for place, (text, found) in enumerate(zip(texts, figures, strict=True)):
        expected = fresh(questions[: place + 1], texts[:place], **options)
        assert text == expected.text
        assert found["prompt_tokens"] == expected.usage.prompt_tokens
        assert found["passes"] == expected.usage.passes
        assert found["rows"] == expected.usage.rows - found["cached_tokens"]
        if place:
            assert found["cached_tokens"] >= figures[place - 1]["prompt_tokens"] > 0


@pytest.mark.parametrize("options", OPTIONS)
def test_a_conversation_forwards_only_what_is_new(options: dict[str, Any]) -> None:
    """Three turns of the sync model."""
    conversation = llm.get_model("dllm").conversation()
    questions = ["why?", "and then?", "so?"]
    responses = [conversation.prompt(question, max_tokens=12, **options) for question in questions[:1]]
    for question in questions[1:]:
        responses[-1].text()
        responses.append(conversation.prompt(question, max_tokens=12, **options))
    texts = [response.text() for response in responses]
    check(questions, texts, [response.response_json or {} for response in responses], **options)


@pytest.mark.parametrize("options", OPTIONS)
async def test_an_async_conversation_forwards_only_what_is_new(options: dict[str, Any]) -> None:
    """The same of the async model."""
    conversation = llm.get_async_model("dllm").conversation()
    questions, texts, figures = ["why?", "and then?", "so?"], [], []
    for question in questions:
        response = conversation.prompt(question, max_tokens=12, **options)
        texts.append(await response.text())
        figures.append(response.response_json or {})
    check(questions, texts, figures, **options)


def test_chat_forwards_only_what_is_new(run: Run) -> None:
    """`llm chat` is one process; its log says what was cached."""
    run("chat", "-m", "dllm", "-o", "max_tokens", "12", input="why?\nand then?\nquit\n")
    logged = json.loads(run("logs", "--json", "-n", "2").stdout)
    figures = [entry["response_json"] for entry in logged]
    assert [json.loads(entry["token_details"]) for entry in logged] == [
        {"cached_tokens": found["cached_tokens"]} for found in figures
    ]
    check(["why?", "and then?"], [entry["response"] for entry in logged], figures)


async def test_sync_and_async_models_share_what_is_kept() -> None:
    """They are one model: a conversation begun by one is gone on with by the other."""
    first = llm.get_model("dllm").prompt("why?", max_tokens=12)
    text = first.text()
    history = [llm.user("why?"), llm.assistant(text), llm.user("and then?")]
    second = llm.get_async_model("dllm").prompt(messages=history, max_tokens=12)
    check(
        ["why?", "and then?"],
        [text, await second.text()],
        [first.response_json or {}, second.response_json or {}],
    )
