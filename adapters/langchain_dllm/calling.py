"""Answers that are the arguments of a tool's call, whole and in chunks."""

import json
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import ToolCallChunk
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.messages.tool import tool_call

from dllm_plugins.tools.growing import GrowingObject


def message_of(text: str, tool: str | None, **told: Any) -> AIMessage:
    """A whole answer: a text, or the call of a tool."""
    if tool is None:
        return AIMessage(text, **told)
    try:
        calls = [tool_call(name=tool, args=json.loads(text), id=_new_id())]
        return AIMessage("", tool_calls=calls, **told)
    except (ValueError, RecursionError) as error:
        cut = invalid_tool_call(name=tool, args=text, id=_new_id(), error=f"its arguments are no JSON: {error}")
        return AIMessage("", invalid_tool_calls=[cut], **told)


def opening_of(tool: str) -> AIMessageChunk:
    """What a streamed call begins with before there is any text: the name of the tool."""
    return AIMessageChunk(content="", tool_call_chunks=[_chunk("", tool)])


def more_of(text: str, tool: str | None, **told: Any) -> AIMessageChunk:
    """Further text of a streamed answer."""
    if tool is None or not text:
        return AIMessageChunk(content=text, **told)
    return AIMessageChunk(content="", tool_call_chunks=[_chunk(text)], **told)


def end_of(text: str, tool: str | None, **told: Any) -> AIMessageChunk:
    """The end of a streamed answer; a call that was cut is ended so that nobody completes it.

    :param text: all of it.
    """
    growing = GrowingObject()
    growing.take(text)
    return more_of("" if tool is None or growing.done else growing.breaking(), tool, **told)


def _chunk(arguments: str, name: str | None = None) -> ToolCallChunk:
    """A piece of a call; the first one has the name."""
    return ToolCallChunk(name=name, args=arguments, id=None if name is None else _new_id(), index=0)


def _new_id() -> str:
    return f"call_{uuid4().hex}"
