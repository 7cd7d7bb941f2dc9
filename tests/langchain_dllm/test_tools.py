"""Tools in LangChain: bound, told of in prompts, called whole and streamed, and answered."""

import json
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import HumanMessage
from langchain_core.messages import SystemMessage
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from dllm_plugins import Commit
from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins.sharing import SharedBatch
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Weather(BaseModel):
    """Tell the weather."""

    place: str


ADD = '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>'
WEATHER = '<tool_call>{"name": "Weather", "arguments": {"place": "Ulm"}}</tool_call>'


@pytest.fixture
def chat(loading: dict[str, Any], tiny_folder: Path, tmp_path: Path) -> Chat:
    """The tiny model with room for prompts in bytes that tell of tools."""
    base = tmp_path / "roomy"
    shutil.copytree(tiny_folder, base)
    config = json.loads((base / "config.json").read_text()) | {"max_position_embeddings": 4096}
    (base / "config.json").write_text(json.dumps(config))
    return lambda **options: ChatDLLM(**{**loading, "base": str(base), **options})


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Request]]:
    """Let the engine answer this, a few characters an event, whatever it is asked; the requests it was given."""
    asked: list[Request] = []
    text = ""

    def events(self: SharedBatch) -> Iterator[tuple[int, Any]]:
        finish = [event for place, event in original(self) if isinstance(event, Finish)]
        for place, end in enumerate(finish):
            for begin in range(0, len(text), 5):
                yield place, Commit(1, 1, (), text[begin : begin + 5])
            yield place, Finish(1, 2, "eos", (), text, end.usage)

    original = SharedBatch.__iter__
    made = SharedBatch.__init__

    def init(self: SharedBatch, shared: Any, requests: Any) -> None:
        asked.extend(requests)
        made(self, shared, requests)

    def use(said: str) -> list[Request]:
        nonlocal text
        text = said
        monkeypatch.setattr(SharedBatch, "__iter__", events)
        monkeypatch.setattr(SharedBatch, "__init__", init)
        return asked

    return use


def test_calls_of_an_answer(chat: Chat, says: Callable[[str], list[Request]]) -> None:
    """Each has an id of its own; text beside them is content."""
    says(f"Let me see. {ADD}\n{WEATHER}")
    message = chat().bind_tools([add, Weather]).invoke("why?")
    assert isinstance(message, AIMessage)
    assert message.content == "Let me see."
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [
        ("add", {"a": 1, "b": 2}),
        ("Weather", {"place": "Ulm"}),
    ]
    assert len({call["id"] for call in message.tool_calls}) == 2
    assert message.invalid_tool_calls == []
    assert [block["type"] for block in message.content_blocks] == ["text", "tool_call", "tool_call"]


def test_calls_of_a_stream(chat: Chat, says: Callable[[str], list[Request]]) -> None:
    """Chunks add up to what invoke gives: of each call its name first, with an id, then pieces of its arguments."""
    says(f"Let me see. {ADD}\n{WEATHER} Done.")
    chunks = list(chat().bind_tools([add, Weather]).stream("why?"))
    first, *rest = chunks
    whole = sum(rest, start=first)
    assert isinstance(whole, AIMessageChunk)
    assert whole.content == "Let me see. Done.".replace(". D", ".D")
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [
        ("add", {"a": 1, "b": 2}),
        ("Weather", {"place": "Ulm"}),
    ]
    assert [chunk["index"] for chunk in whole.tool_call_chunks] == [0, 1]
    told = [item for chunk in chunks if isinstance(chunk, AIMessageChunk) for item in chunk.tool_call_chunks]
    for index, (name, arguments) in enumerate((("add", '{"a": 1, "b": 2}'), ("Weather", '{"place": "Ulm"}'))):
        begin, *pieces = [item for item in told if item["index"] == index]
        assert (begin["name"], bool(begin["id"])) == (name, True)
        assert all(item["name"] is item["id"] is None for item in pieces)
        assert len(pieces) > 2
        assert "".join(item["args"] or "" for item in (begin, *pieces)) == arguments
    assert whole.usage_metadata is not None


@pytest.mark.parametrize(
    ("said", "name", "error"),
    [
        ('<tool_call>{"name": "ad', None, "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {', "add", "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1', "add", "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": [{"b": "c', "add", "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": [1', "add", "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": "\\', "add", "no JSON"),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}', "add", "no JSON"),
        ('<tool_call>{"name": "sub", "arguments": {"a": 1}}</tool_call>', "sub", "no tool 'sub'; the tools are: add"),
        ('<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "add", "no object"),
    ],
)
def test_what_is_no_call(
    chat: Chat, says: Callable[[str], list[Request]], said: str, name: str | None, error: str
) -> None:
    """It is told as invalid, whole and streamed, and never as a call with half of its arguments."""
    says(f"Well: {said}")
    model = chat().bind_tools([add])
    message, chunks = model.invoke("why?"), list(model.stream("why?"))
    assert isinstance(message, AIMessage)
    [invalid] = message.invalid_tool_calls
    assert (invalid["name"], invalid["args"]) == (name, said)
    assert error in str(invalid["error"])
    first, *rest = chunks
    whole = sum(rest, start=first)
    for found in (message, whole):
        assert isinstance(found, AIMessage)
        assert found.content == "Well:"
        assert found.tool_calls == []
        [item] = found.invalid_tool_calls
        assert item["name"] == name
        # Pieces of arguments end so that nobody completes them.
        pieces = said.partition('"arguments": ')[2]
        streamed = found is whole and name == "add" and pieces.startswith("{")
        assert str(item["args"]).startswith(pieces) if streamed else item["args"] == said


def test_without_tools_text_is_text(chat: Chat, says: Callable[[str], list[Request]]) -> None:
    """Also where none is to be called."""
    says(ADD)
    for model in (chat(), chat().bind_tools([add], tool_choice="none"), chat().bind_tools([])):
        message = model.invoke("why?")
        assert message.content == ADD
        assert not message.tool_calls


def test_prompts_tell_of_tools_and_results(chat: Chat, says: Callable[[str], list[Request]]) -> None:
    """As the model's template or our text has it; other models' blocks that say calls once more are passed over."""
    asked, model = says("Three."), chat()
    calls = [{"name": "add", "args": {"a": 1, "b": 2}, "id": "one"}]
    content: list[str | dict[str, Any]] = [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "one", "name": "add", "input": {"a": 1, "b": 2}},
    ]
    history = [
        SystemMessage("Be brief."),
        HumanMessage("1 + 2?"),
        AIMessage(content, tool_calls=calls),
        ToolMessage("3", tool_call_id="one", name="add"),
    ]
    model.bind_tools([add]).invoke(history)
    prompt = model._shared("dllm").model.tokenizer.decode(asked[0].tokens)
    assert prompt.startswith("<s>system\nBe brief.\n\n")
    assert '"name": "add", "description": "Add two numbers."' in prompt
    assert f"<s>assistant\nLet me see.\n{ADD}</s>" in prompt
    assert "<s>user\n<tool_response>\nadd: 3\n</tool_response></s>" in prompt
    tokens = model.get_num_tokens_from_messages(history, tools=[add])
    assert tokens == len(asked[0].tokens)


async def test_asynchronous(chat: Chat) -> None:
    """The tiny model's own words, with tools in its prompt, are the same by every way."""
    model = chat(max_tokens=8).bind_tools([add])
    text = model.invoke("why?").content
    assert (await model.ainvoke("why?")).content == text
    assert "".join([str(chunk.content) async for chunk in model.astream("why?")]) == text
    assert [message.content for message in model.batch(["why?", "why?"])] == [text, text]
    assert text != chat(max_tokens=8).invoke("why?").content


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [7]}, "7 is no tool"),
        ({"tools": [add, {"name": "add", "description": "", "parameters": {}}]}, "two tools of the name 'add'"),
        ({"tools": [add], "tool_choice": "sub"}, "tool_choice='sub'.* the name of a tool: add"),
        ({"tools": [], "tool_choice": "any"}, "there are no tools"),
        ({"tools": [add], "parallel_tool_calls": 3}, "parallel_tool_calls=3: give True or False"),
    ],
)
def test_bindings_that_are_wrong(chat: Chat, options: dict[str, Any], words: str) -> None:
    """Said when they are bound, and where they are given to a call."""
    with pytest.raises(DllmError, match=words):
        chat().bind_tools(**options)
    with pytest.raises(DllmError, match=words):
        chat().invoke("why?", **options)
