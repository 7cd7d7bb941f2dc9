"""What answers tell of calls that the room has cut, and of thoughts; nothing is computed."""

from dataclasses import replace
from typing import Any

import pytest

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import JsonSchema
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.events import Usage
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.chat_answers import ChatAnswers
from dllm_plugins.serving.mailbox import merged
from dllm_plugins.serving.response_answers import ResponseAnswers
from dllm_plugins.serving.responses import ResponseRequest
from dllm_plugins.serving.work import Work
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.tool import Tool

from .asking import events

TEXT = 'Well.\n<tool_call>{"name": "clock", "arguments": {"zone": "UT'
WORK = Work([Request([1])], tools=[Tool("clock")], form=OWN)
USAGE = Usage(1, 0, 9, 9, {}, 1, 0.0, 0.0, "ar", "exact", "exact", None, reasoning_tokens=4)
CUT = Finish(1, 9, "length", (1,) * 9, TEXT, USAGE, reasoning="Hm. So.")
COMMITS = (
    Commit(1, 1, (), "", reasoning="Hm."),
    Commit(1, 2, (), TEXT[:30], reasoning=" So."),
    Commit(1, 3, (), TEXT[30:]),
)


def chat(work: Work = WORK) -> ChatAnswers:
    asked = ChatRequest.model_validate({"model": "m", "messages": [{"role": "user", "content": "?"}], "stream": True})
    return ChatAnswers(asked, work, None)


def response(work: Work = WORK) -> ResponseAnswers:
    return ResponseAnswers(ResponseRequest.model_validate({"model": "m", "input": "?"}), work, None)


def streamed(answers: Any) -> list[Any]:
    lines = [*answers.opening(), *(line for event in (*COMMITS, CUT) for line in answers.more(0, event))]
    return [data for _, data in events("".join([*lines, *answers.closing([CUT])])) if data != "[DONE]"]


def test_chats() -> None:
    """Thought, text, a call that is none: the pieces are what is told at once."""
    told = chat().whole([CUT])
    [choice] = told["choices"]
    message = choice["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm. So.", "Well.")
    assert choice["finish_reason"] == "length"
    [call] = message["tool_calls"]
    assert call["function"] == {"name": "clock", "arguments": '{"zone": "UT"]'}
    assert told["usage"]["completion_tokens_details"] == {"reasoning_tokens": 4}
    choices = [data["choices"][0] for data in streamed(chat())]
    deltas = [choice["delta"] for choice in choices]
    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["Hm.", " So."]
    assert "".join(delta.get("content", "") for delta in deltas) == "Well."
    pieces = [piece["function"] for delta in deltas for piece in delta.get("tool_calls", ())]
    assert "".join(piece["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert choices[-1]["finish_reason"] == "length"


def test_responses() -> None:
    """An item each, of which the last is incomplete; events end in what is told at once."""
    told = response().whole([CUT])
    thought, said, call = told["output"]
    assert (thought["type"], thought["status"], thought["summary"]) == ("reasoning", "completed", [])
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm. So."}]
    assert (said["content"][0]["text"], said["status"]) == ("Well.", "completed")
    assert (call["name"], call["arguments"], call["status"]) == ("clock", '{"zone": "UT"]', "incomplete")
    assert told["usage"]["output_tokens_details"] == {"reasoning_tokens": 4}
    assert told["status"] == "incomplete"
    found = streamed(response())
    same = [item | {"id": "", "call_id": ""} for item in found[-1]["response"]["output"]]
    assert same == [item | {"id": "", "call_id": ""} for item in told["output"]]
    kinds = [data["type"].removeprefix("response.") for data in found]
    assert kinds.count("reasoning_text.delta") == 2
    assert kinds.count("output_item.added") == kinds.count("output_item.done") == 3
    assert "function_call_arguments.done" not in kinds
    added = [data["item"] for data in found if data["type"] == "response.output_item.added"]
    assert [item["status"] for item in added] == ["in_progress"] * 3
    assert [data["output_index"] for data in found if data["type"] == "response.output_item.done"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1}', ("stop", "completed")),
        ('{"a": 1', ("length", "incomplete")),
        ("12", ("length", "incomplete")),
    ],
)
def test_json_that_fills_all_the_room(text: str, told: tuple[str, str]) -> None:
    """Nothing is missing of it where nothing could follow."""
    work = Work([Request([1], SamplingConfig(constraint=JsonSchema({})))], json=True)
    end = replace(CUT, text=text)
    [choice] = chat(work).whole([end])["choices"]
    assert (choice["finish_reason"], response(work).whole([end])["status"]) == told
    call = replace(CUT, text='<tool_call>{"name": "clock", "arguments": {}}</tool_call>')
    assert chat().whole([call])["choices"][0]["finish_reason"] == "tool_calls"
    assert response().whole([call])["status"] == "completed"


def test_a_thought_that_is_cut() -> None:
    """Nothing is said: an item of thinking alone, and it is incomplete."""
    end = replace(CUT, text="")
    [item] = response().whole([end])["output"]
    assert (item["type"], item["status"]) == ("reasoning", "incomplete")
    assert chat().whole([end])["choices"][0]["message"]["content"] == ""
    [item] = response().whole([replace(end, reasoning="")])["output"]
    assert (item["type"], item["content"][0]["text"]) == ("message", "")


def test_what_waits_is_put_together() -> None:
    """Thoughts as well as texts."""
    first, *rest = COMMITS
    for commit in rest:
        first = merged(first, commit)
    assert (first.reasoning, first.text) == (CUT.reasoning, CUT.text)
