"""Tools in chats: whole calls that keep to their schemas, results that are read again, and choices."""

import json
import re
from collections.abc import AsyncIterator
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel
from dllm_plugins.tools.tool import Tool

from .asking import asked
from .asking import body
from .asking import refused
from .asking import streamed
from .asking import text_of
from .conftest import client_of

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock", "strict": True}}

#: A call before its arguments.
BEGUN = {"name": "weather", "arguments": ""}


@pytest.fixture
async def client(
    make_app: Callable[..., FastAPI], roomy: Loading, held_roomy: SharedModel
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server whose model has room for tools."""
    async with client_of(make_app(models={"tiny": roomy})) as made:
        yield made


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_call_that_is_asked_for(client: httpx.AsyncClient, choice: Any) -> None:
    """Whole and streamed; its arguments are what the schema allows."""
    given: dict[str, Any] = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 140}
    [choice] = (await asked(client, **given))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [call] = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "weather"
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["city"] in ("Rome", "Oslo")
    assert 1 <= arguments["days"] <= 9
    found = await streamed(client, **given)
    choices = [data["choices"][0] for _, data in found[:-1]]
    [first, *pieces] = [told for one in choices for told in one["delta"].get("tool_calls", ())]
    assert first["id"].startswith("call_")
    assert first | {"id": ""} == {"index": 0, "id": "", "type": "function", "function": BEGUN}
    assert pieces
    assert all(set(piece) == {"index", "function"} and piece["index"] == 0 for piece in pieces)
    assert "".join(piece["function"]["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert text_of(found) == ""
    assert choices[-1]["finish_reason"] == "tool_calls"


async def test_a_stop_string_ends_a_call(client: httpx.AsyncClient) -> None:
    """It is no whole call then, streamed as it is told at once, and nobody can complete its arguments."""
    given: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 140, "stop": ["days"]}
    [choice] = (await asked(client, **given))["choices"]
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] in ('{"city": "Rome", ""]', '{"city": "Oslo", ""]')
    assert choice["finish_reason"] == "stop"
    choices = [data["choices"][0] for _, data in (await streamed(client, **given))[:-1]]
    pieces = [told["function"] for one in choices for told in one["delta"].get("tool_calls", ())]
    assert "".join(piece["arguments"] for piece in pieces) == call["function"]["arguments"]
    assert choices[-1]["finish_reason"] == "stop"


async def test_one_of_several(client: httpx.AsyncClient) -> None:
    """A single call where one must be made, unless several may."""
    given: dict[str, Any] = {"tools": [WEATHER, CLOCK], "tool_choice": "required", "max_tokens": 200}
    [choice] = (await asked(client, parallel_tool_calls=False, **given))["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["message"]["tool_calls"][0]["function"]["name"] in ("weather", "clock")


async def test_the_prompt_tells_of_tools_calls_and_results(client: httpx.AsyncClient, held_roomy: SharedModel) -> None:
    """As the model's own chats do."""
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    chat: list[dict[str, Any]] = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what "}, {"type": "text", "text": "time?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    own: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "what time?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    tools, tiny = [Tool("clock")], held_roomy.model
    config = tiny.with_tools(SamplingConfig(max_new_tokens=16), tools)
    [expected] = tiny.engine().generate([Request(tiny.encode_chat(own, tools), config)])
    answer = await asked(client, messages=chat, tools=[CLOCK])
    assert answer["usage"]["prompt_tokens"] == expected.usage.prompt_tokens
    assert answer["choices"][0]["message"]["content"] == expected.text
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_none_is_to_be_called(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """Then the model is told of none."""
    answer = await asked(client, tools=[WEATHER], tool_choice="none")
    assert answer["choices"][0]["message"]["content"] == alone("why?").text


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": "clock"}, "tool_choice"),
        (
            {"tools": [WEATHER], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
        ),
        ({"tools": [WEATHER], "tool_choice": "required", "max_tokens": 4}, "max_tokens"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        ({"functions": [{"name": "a"}]}, "functions"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, given: dict[str, Any], param: str) -> None:
    """What is no tool, no choice, or has no meaning beside them."""
    status, error = await refused(client, json=body(**given))
    assert (status, error["param"]) == (400, param), error


async def test_too_little_room_for_a_call(client: httpx.AsyncClient) -> None:
    """What asked for the call is named."""
    given: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 4}
    _, error = await refused(client, json=body(**given))
    assert re.match(r"tool_choice: the shortest text .* room for 4; raise max_tokens", error["message"])


@pytest.mark.parametrize("given", [{}, {"tools": [WEATHER]}])
async def test_json_that_fills_its_room_is_whole(client: httpx.AsyncClient, given: dict[str, Any]) -> None:
    """Tools that are not called change nothing of that."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": "abcd"}}}
    [choice] = (await asked(client, response_format=form, max_tokens=6, **given))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('"abcd"', "stop")
