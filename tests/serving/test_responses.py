"""/v1/responses: what the official client's basic calls need, with nothing remembered between them."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai.types.responses import Response

from dllm_plugins import Finish
from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel

from .asking import events
from .asking import refused
from .conftest import client_of

PATH = "/v1/responses"


def body(asked: Any = "why?", **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "input": asked, "max_output_tokens": 16} | more


async def answered(client: httpx.AsyncClient, asked: Any = "why?", **more: Any) -> Any:
    answer = await client.post(PATH, json=body(asked, **more))
    assert answer.status_code == 200, answer.text
    # As the official client declares it, which reads answers without checking them.
    Response.model_validate(answer.json())
    return answer.json()


async def streamed(client: httpx.AsyncClient, asked: Any = "why?", **more: Any) -> list[Any]:
    answer = await client.post(PATH, json=body(asked, stream=True, **more))
    assert answer.status_code == 200, answer.text
    found = events(answer.text)
    assert all(name in (data["type"], "draft") for name, data in found)
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    return [data for _, data in found]


def told(response: Any) -> str:
    """The text of an answer."""
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts)


async def test_whole_and_streamed(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """The engine's answer, piece by piece and at the end in full."""
    expected = alone("why?")
    status = "incomplete" if expected.reason == "length" else "completed"
    response = await answered(client)
    assert told(response) == expected.text
    assert response["status"] == status
    assert response["usage"]["output_tokens"] == len(expected.tokens)
    found = await streamed(client)
    kinds = [data["type"].removeprefix("response.") for data in found]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", status]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert "".join(data["delta"] for data in found[4:-4]) == found[-4]["text"] == expected.text
    last = found[-1]["response"]
    assert {item["id"] for item in last["output"]} == {found[2]["item"]["id"]}
    assert told(last) == expected.text
    assert {**last, "id": "", "output": [], "created_at": 0, "usage": None} == {
        **response,
        "id": "",
        "output": [],
        "created_at": 0,
        "usage": None,
    }


async def test_a_conversation(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """As a list of messages, with instructions before it, and a former answer as it came."""
    first = await answered(client)
    chat = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": told(first)},
        {"role": "user", "content": "how?"},
    ]
    expected = alone(chat).text
    items = [
        {"role": "user", "content": "why?"},
        *first["output"],
        {"role": "user", "content": [{"type": "input_text", "text": "how?"}]},
    ]
    # A part of an answer holds more than a text.
    assert told(await answered(client, items, instructions="be brief")) == expected


async def test_tools(make_app: Any, roomy: Loading, held_roomy: SharedModel) -> None:
    """A call, its result, and the answer to that."""
    tool = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}, "strict": True}
    given: dict[str, Any] = {"tools": [tool], "max_output_tokens": 80}
    async with client_of(make_app(models={"tiny": roomy})) as client:
        response = await answered(client, tool_choice="required", **given)
        [call] = response["output"]
        assert (call["type"], call["name"], json.loads(call["arguments"])) == ("function_call", "clock", {})
        assert response["status"] == "completed"
        found = await streamed(client, tool_choice="required", **given)
        kinds = [data["type"].removeprefix("response.") for data in found[2:]]
        assert kinds == [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        assert found[-1]["response"]["output"][0]["arguments"] == found[4]["arguments"] == call["arguments"]
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}
        again = await answered(client, [{"role": "user", "content": "why?"}, call, result], **given)
        chat: list[dict[str, Any]] = [
            {"role": "user", "content": "why?"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": "{}"}}]},
            {"role": "tool", "content": "noon"},
        ]
        assert again["usage"]["input_tokens"] == len(held_roomy.model.encode_chat(chat, [_clock()]))


def _clock() -> Any:
    from dllm_plugins.tools.tool import Tool

    return Tool("clock", "", {"type": "object", "properties": {}})


async def test_formats_and_drafts(client: httpx.AsyncClient) -> None:
    """A schema stands beside its name here; drafts are events of their own."""
    schema = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
    response = await answered(client, text={"format": form})
    assert json.loads(told(response)) == {"a": 1}
    found = await streamed(client, dllm={"mode": "diffusion", "draft_events": True}, top_logprobs=1)
    drafts = [data for data in found if data["type"] == "dllm.draft"]
    assert drafts
    assert all(data["dllm"]["draft"]["tokens"] for data in drafts)
    [done] = [data for data in found if data["type"] == "response.output_text.done"]
    assert done["logprobs"]
    assert found[-1]["response"]["dllm"]["statistics"][0]["mode"] == "diffusion"


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"text": {"format": {"type": "xml"}}}, "text.format"),
        ({"n": 2}, "n"),
        ({"input": " "}, "input"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"const": "a" * 20}}}}, "text.format"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, given: dict[str, Any], param: str) -> None:
    """By the field's name."""
    status, error = await refused(client, PATH, json=body(**given))
    assert status == 400
    assert str(error["param"]).startswith(param), error
