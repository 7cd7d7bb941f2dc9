"""The tools of one call: what LangChain binds, and what it is told of calls."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessageChunk
from langchain_core.messages import InvalidToolCall
from langchain_core.messages import ToolCall
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.messages.tool import tool_call
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.tools.calls import Began
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.calls import Malformed
from dllm_plugins.tools.calls import Piece
from dllm_plugins.tools.growing import GrowingObject
from dllm_plugins.tools.reading import CallReader
from dllm_plugins.tools.reading import Part
from dllm_plugins.tools.reading import Reply
from dllm_plugins.tools.tool import NONE
from dllm_plugins.tools.tool import Tool
from dllm_plugins.tools.tool import choice_of
from dllm_plugins.tools.tool import tools_of

#: What `bind_tools` binds, and calls are given.
ARGUMENTS = ("tools", "tool_choice", "parallel_tool_calls")
#: What LangChain makes functions of.
Bindable = Mapping[str, Any] | type | Callable[..., Any] | BaseTool


@dataclass(frozen=True, slots=True)
class Toolkit:
    """Tools that are told of in the prompt.

    :param choice: "auto", "any", or the tool that is called.
    :param parallel: whether an answer may hold several calls; None for what goes with the choice.
    """

    tools: tuple[Tool, ...]
    choice: str
    parallel: bool | None

    @property
    def names(self) -> list[str]:
        """Of the tools."""
        return [tool.name for tool in self.tools]


def toolkit_of(given: Mapping[str, Any]) -> Toolkit | None:
    """The tools among a call's keyword arguments; None if there are none, or none is to be called.

    :raises OptionError: for what is no tool, and a choice that there is not.
    """
    bound = given.get("tools") or ()
    if not isinstance(bound, Sequence) or isinstance(bound, str):
        raise OptionError(f"tools={shown(bound)}: give a list of tools")
    parallel = given.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise OptionError(f"parallel_tool_calls={shown(parallel)}: give True or False")
    tools = tools_of([function_of(tool) for tool in bound])
    choice = choice_of(given.get("tool_choice"), tools)
    return Toolkit(tools, choice, parallel) if tools and choice != NONE else None


def function_of(tool: Bindable, strict: bool | None = None) -> dict[str, Any]:
    """A tool as OpenAI's functions are written.

    :raises OptionError: for what LangChain can make no function of.
    """
    try:
        return convert_to_openai_tool(tool, strict=strict)
    except Exception as error:
        raise OptionError(
            f"{shown(tool)} is no tool ({type(error).__name__}: {error}); give a function with a docstring, a tool, a "
            f"pydantic class or a JSON schema with title and description"
        ) from error


def called(reply: Reply) -> dict[str, Any]:
    """Arguments of an AIMessage for what an answer calls."""
    return {
        "tool_calls": [_call(call) for call in reply.calls],
        "invalid_tool_calls": [_invalid(item) for item in reply.malformed],
    }


def _call(call: Call) -> ToolCall:
    return tool_call(name=call.name, args=dict(call.arguments), id=_new_id())


def _invalid(item: Malformed) -> InvalidToolCall:
    return invalid_tool_call(name=item.name, args=item.text, id=_new_id(), error=item.error)


def _new_id() -> str:
    return f"call_{uuid4().hex}"


class StreamedCalls:
    """Turns the texts of one streamed answer into texts and chunks of calls."""

    def __init__(self, reader: CallReader) -> None:
        self._reader = reader
        self._count = 0
        self._growing: GrowingObject | None = None

    def within(self, chunk: AIMessageChunk) -> AIMessageChunk | None:
        """What a chunk of an answer's text tells; None if nothing is sure yet.

        :param chunk: as it would be without tools.
        """
        last = chunk.chunk_position == "last"
        parts = self._reader.push(str(chunk.content)) + (self._reader.end() if last else [])
        text = "".join(part for part in parts if isinstance(part, str))
        calls = list(self._chunks(parts))
        if not text and not calls and not last and not chunk.response_metadata and not chunk.additional_kwargs:
            return None
        return chunk.model_copy(update={"content": text}) if not calls else _with_calls(chunk, text, calls)

    def _chunks(self, parts: Iterable[Part]) -> Iterable[ToolCallChunk]:
        """New pieces of calls: the first one of each has its name and its id."""
        found: dict[int, ToolCallChunk] = {}
        for part in parts:
            if isinstance(part, str):
                continue
            new = self._chunk(part)
            known = found.get(self._count)
            if known is not None:
                new = {**known, "args": f"{known['args']}{new['args']}"}
            found[self._count] = new
            if isinstance(part, Call | Malformed):
                self._count += 1
                self._growing = None
        return [chunk for chunk in found.values() if chunk["name"] is not None or chunk["args"]]

    def _chunk(self, part: Began | Piece | Call | Malformed) -> ToolCallChunk:
        growing = self._growing
        if isinstance(part, Began):
            self._growing = GrowingObject()
            return tool_call_chunk(name=part.name, args="", id=_new_id(), index=self._count)
        if growing is None:
            # Told all at once. What is no call never parses.
            args = part.written() if isinstance(part, Call) else part.text
            return tool_call_chunk(name=getattr(part, "name", None), args=args, id=_new_id(), index=self._count)
        if isinstance(part, Piece):
            return tool_call_chunk(args=growing.take(part.text), index=self._count)
        # LangChain would complete what was cut, and call it whole.
        return tool_call_chunk(args="" if isinstance(part, Call) else growing.breaking(), index=self._count)


def _with_calls(chunk: AIMessageChunk, text: str, calls: list[ToolCallChunk]) -> AIMessageChunk:
    return AIMessageChunk(
        content=text,
        tool_call_chunks=calls,
        additional_kwargs=chunk.additional_kwargs,
        usage_metadata=chunk.usage_metadata,
        response_metadata=chunk.response_metadata,
        chunk_position=chunk.chunk_position,
    )
