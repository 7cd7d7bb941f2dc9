"""Agents of LangChain and LangGraph on the tiny model: rounds, streams, and answers of a class."""

from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from dllm_plugins import Commit
from dllm_plugins import Draft
from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins.sharing import SharedBatch
from langchain_dllm import ChatDLLM

from ..text.thinking_templates import SWITCHED
from ..thoughtful import thoughtful

ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
TWICE = '<tool_call>{"name": "add", "arguments": {"a": 3, "b": 3}}</tool_call>'
ASK: Any = {"messages": [("user", "1 + 2, twice?")]}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Size(BaseModel):
    """How large something is."""

    size: Literal["small", "large"]


@pytest.fixture
def model(loading: dict[str, Any], tiny_folder: Path, tmp_path: Path) -> ChatDLLM:
    """With room for prompts in bytes, and a template that tells of tools and of thinking."""
    base = thoughtful(tiny_folder, tmp_path / "base", SWITCHED)
    return ChatDLLM(**{**loading, "base": str(base), "max_tokens": 90, "temperature": 1.0, "seed": 1})


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Request]]:
    """Let the engine give these answers one after another, thoughts before a bar; the requests it was given."""
    asked: list[Request] = []
    answers: list[str] = []
    made, original = SharedBatch.__init__, SharedBatch.__iter__

    def events(self: SharedBatch) -> Iterator[tuple[int, Any]]:
        [end] = [event for _, event in original(self) if isinstance(event, Finish)]
        thought, _, text = answers.pop(0).rpartition("|")
        yield 0, Commit(1, 1, (), "", reasoning=thought)
        for begin in range(0, len(text), 9):
            yield 0, Draft(1, 1, (None,), "·")
            yield 0, Commit(1, 1, (), text[begin : begin + 9])
        yield 0, Finish(1, 2, "eos", (), text, end.usage, reasoning=thought)

    def init(self: SharedBatch, shared: Any, requests: Any) -> None:
        asked.extend(requests)
        made(self, shared, requests)

    def use(*texts: str) -> list[Request]:
        answers[:] = texts
        monkeypatch.setattr(SharedBatch, "__iter__", events)
        monkeypatch.setattr(SharedBatch, "__init__", init)
        return asked

    return use


def kinds(messages: list[Any]) -> list[str]:
    return [message.type for message in messages]


def test_rounds(model: ChatDLLM, says: Callable[..., list[Request]]) -> None:
    """Calls, results and thoughts go back into the prompt, until an answer calls nothing."""
    asked = says(f"first|{ADD}", TWICE, "6.")
    found: Any = create_agent(model, [add]).invoke(ASK)
    assert kinds(found["messages"]) == ["human", "ai", "tool", "ai", "tool", "ai"]
    results = [message.content for message in found["messages"] if isinstance(message, ToolMessage)]
    assert results == ["3", "6"]
    assert found["messages"][-1].content == "6."
    prompts = [model._shared("dllm").model.tokenizer.decode(request.tokens) for request in asked]
    assert "<think>\nfirst\n</think>" in prompts[-1]
    assert prompts[-1].count("<tool_call>") == 2
    assert [one in prompts[-1] for one in ("<s>tool\n3</s>", "<s>tool\n6</s>")] == [True, True]


def test_streams(model: ChatDLLM, says: Callable[..., list[Request]]) -> None:
    """`messages`: pieces of thoughts, calls and texts; `custom`: drafts; `updates`: whole messages."""
    says(f"first|{ADD}", "It is three.")
    pieces: list[AIMessageChunk] = []
    drafts, updates = 0, []
    agent: Any = create_agent(model, [add])
    for mode, told in agent.stream(ASK, stream_mode=["messages", "custom", "updates"]):
        if mode == "messages" and isinstance(told[0], AIMessageChunk):
            pieces.append(told[0])
        drafts += mode == "custom" and told["name"] == "dllm_draft"
        updates += [told] if mode == "updates" else []
    assert drafts > 4
    assert [list(update) for update in updates] == [["model"], ["tools"], ["model"]]
    first = [piece for piece in pieces if piece.id == pieces[0].id]
    whole = sum(first[1:], start=first[0])
    assert [block["type"] for block in whole.content_blocks] == ["reasoning", "tool_call"]
    assert whole.tool_calls[0]["args"] == {"a": 1, "b": 2}
    assert len([piece for piece in first if piece.tool_call_chunks]) > 2
    rest = [piece for piece in pieces if piece.id != pieces[0].id]
    assert "".join(piece.text for piece in rest) == "It is three."


def test_a_call_that_is_none_goes_nowhere(model: ChatDLLM, says: Callable[..., list[Request]]) -> None:
    """The agent does not carry out what was cut."""
    says('<tool_call>{"name": "add", "arguments": {"a": 1')
    [_, answer] = create_agent(model, [add]).invoke(ASK)["messages"]
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls == []
    assert answer.invalid_tool_calls[0]["name"] == "add"


@pytest.mark.parametrize("tools", [[], [add]], ids=["alone", "beside tools"])
@pytest.mark.parametrize("wanted", [Size, ToolStrategy(Size)], ids=["answer", "call"])
def test_answers_of_a_class(model: ChatDLLM, tools: list[Any], wanted: Any) -> None:
    """Nothing is scripted: whatever random weights say is a call of a tool, or the object that was asked for."""
    agent: Any = create_agent(model, tools, response_format=wanted)
    found = agent.invoke(ASK, {"recursion_limit": 40})
    assert isinstance(found["structured_response"], Size)
