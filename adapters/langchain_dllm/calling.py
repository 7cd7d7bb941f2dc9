"""Answers that are the arguments of a tool's call, whole and in chunks."""

from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import ToolCallChunk


def message_of(text: str, tool: str | None, **told: Any) -> AIMessage:
    """A whole answer: a text, or the call of a tool."""
    if tool is None:
        return AIMessage(text, **told)
    made = AIMessageChunk(content="", tool_call_chunks=[_chunk(text, tool)])
    return AIMessage("", tool_calls=made.tool_calls, invalid_tool_calls=made.invalid_tool_calls, **told)


def opening_of(tool: str) -> AIMessageChunk:
    """What a streamed call begins with before there is any text: the name of the tool."""
    return AIMessageChunk(content="", tool_call_chunks=[_chunk("", tool)])


def more_of(text: str, tool: str | None, **told: Any) -> AIMessageChunk:
    """Further text of a streamed answer."""
    if tool is None or not text:
        return AIMessageChunk(content=text, **told)
    return AIMessageChunk(content="", tool_call_chunks=[_chunk(text)], **told)


def _chunk(arguments: str, name: str | None = None) -> ToolCallChunk:
    """A piece of a call; the first one has the name."""
    return ToolCallChunk(name=name, args=arguments, id=None if name is None else f"call_{uuid4().hex}", index=0)
