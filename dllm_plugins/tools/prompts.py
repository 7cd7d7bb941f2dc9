"""Chats with tools, calls and results, as a model's chat template takes them."""

import json
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from dllm_plugins.errors import RequestError
from dllm_plugins.messages import shown
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.templates import ToolHabit
from dllm_plugins.tools.tool import Tool

#: Around each result, where the template has nothing for it.
RESULT, RESULT_END = "<tool_response>", "</tool_response>"


def prompt_of(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool], habit: ToolHabit) -> list[dict[str, Any]]:
    """Messages for the template, which is given the tools besides if it is native.

    :param messages: also assistants' with `tool_calls`, and `{"role": "tool", "content": result}`.
    :raises RequestError: for calls that cannot be read.
    """
    if habit.native:
        return [_with_objects(message) for message in messages]
    chat = [_spoken(message, habit.form) for message in messages]
    chat = [turn for role, run in groupby(chat, key=_role) for turn in (_merged(run) if role == "tool" else run)]
    return _instructed(chat, instructions(tools, habit.form), habit.system) if tools else chat


def instructions(tools: Sequence[Tool], form: CallFormat) -> str:
    """What a system prompt says of tools where the template says nothing."""
    listed = "\n".join(json.dumps(tool.as_function()["function"], ensure_ascii=False) for tool in tools)
    example = f"{form.before}{form.opening}NAME{form.middle}{{...}}{form.closing}{form.after}"
    return (
        f"These functions are there for you to call. Each line is one of them, with a JSON schema of its arguments:\n"
        f"<tools>\n{listed}\n</tools>\n"
        f"Where a function helps, answer with nothing but the call: its name, and an object of its arguments.\n"
        f"{example}\n"
        f"You are then told what it returned, between {RESULT} and {RESULT_END}."
    )


def calls_in(message: Mapping[str, Any]) -> list[Call]:
    """The calls of an assistant's message.

    :raises RequestError: naming the call that cannot be read.
    """
    return [_call(item) for item in message.get("tool_calls") or ()]


def _call(item: Any) -> Call:
    function = item.get("function", item) if isinstance(item, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise RequestError(
            f"tool call {shown(item)} of a message has no name or no object of arguments; give "
            f'{{"function": {{"name": ..., "arguments": {{...}}}}}}'
        )
    return Call(name, arguments)


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message, its calls in the one form that templates share: arguments as objects."""
    if not message.get("tool_calls"):
        return dict(message)
    written = [
        {
            "type": "function",
            "id": item.get("id") or f"call{number}",
            "function": {"name": call.name, "arguments": dict(call.arguments)},
        }
        for number, (item, call) in enumerate(zip(message["tool_calls"], calls_in(message), strict=True))
    ]
    return {**message, "tool_calls": written}


def _spoken(message: Mapping[str, Any], form: CallFormat) -> dict[str, Any]:
    """The message with its calls as text."""
    kept = {name: value for name, value in message.items() if name not in ("tool_calls", "tool_call_id")}
    calls = calls_in(message)
    if calls:
        kept["content"] = "\n".join(part for part in (message["content"], form.written(calls)) if part)
    return kept


def _role(message: Mapping[str, Any]) -> str:
    return str(message["role"])


def _merged(results: Any) -> list[dict[str, Any]]:
    """Results in a row as one message of the user, since many templates know no other and want turns to alternate."""
    return [{"role": "user", "content": "\n".join(_result(message) for message in results)}]


def _result(message: Mapping[str, Any]) -> str:
    named = f"{message['name']}: " if message.get("name") else ""
    # What a tool returns ends where we say, not where it says.
    content = message["content"].replace(RESULT_END, RESULT_END.replace("/", "\\/"))
    return f"{RESULT}\n{named}{content}\n{RESULT_END}"


def _instructed(chat: list[dict[str, Any]], text: str, system: bool) -> list[dict[str, Any]]:
    """The chat with this in its system prompt, or before its first question."""
    if chat and chat[0]["role"] in ("system", "developer"):
        first = {**chat[0], "content": f"{chat[0]['content']}\n\n{text}"}
        return [first, *chat[1:]]
    if system:
        return [{"role": "system", "content": text}, *chat]
    place = next(place for place, turn in enumerate(chat) if turn["role"] == "user")
    first = {**chat[place], "content": f"{text}\n\n{chat[place]['content']}"}
    return [*chat[:place], first, *chat[place + 1 :]]
