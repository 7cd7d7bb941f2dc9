"""Tools of llm: in prompts, and called in answers."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from uuid import uuid4

import llm

from dllm_plugins.errors import RequestError

if TYPE_CHECKING:
    from llm.parts import StreamEvent

    from dllm_plugins.tools.calls import Began
    from dllm_plugins.tools.calls import Call
    from dllm_plugins.tools.calls import Malformed
    from dllm_plugins.tools.calls import Piece
    from dllm_plugins.tools.tool import Tool
    from llm_dllm.loading import LoadChoice


def tools_of(prompt: llm.Prompt) -> "tuple[Tool, ...]":
    """What the model may call.

    :raises OptionError: for a tool whose name or schema cannot be used.
    """
    from dllm_plugins.tools.tool import Tool

    return tuple(Tool(tool.name, tool.description or "", tool.input_schema or {}) for tool in prompt.tools)


def messages_of(message: Any) -> list[dict[str, Any]]:
    """A message of llm as those of a chat: one for each result of a tool, else one with text and calls.

    :raises RequestError: for parts that are neither text nor thinking nor of tools.
    """
    from llm.parts import ReasoningPart
    from llm.parts import TextPart
    from llm.parts import ToolCallPart
    from llm.parts import ToolResultPart

    thinks = str(message.role) == "assistant"
    for part in message.parts:
        if not isinstance(part, TextPart | ToolCallPart | ToolResultPart | (ReasoningPart if thinks else TextPart)):
            raise RequestError(f"this model reads text only, not {type(part).__name__}; leave it out")
    results = [part for part in message.parts if isinstance(part, ToolResultPart)]
    found = [
        {"role": "tool", "name": part.name, "tool_call_id": part.tool_call_id, "content": part.output}
        for part in results
    ]
    if results and len(results) == len(message.parts):
        return found
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    calls = [
        {"id": part.tool_call_id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    thought = "".join(part.text for part in message.parts if isinstance(part, ReasoningPart))
    more = ({"tool_calls": calls} if calls else {}) | ({"reasoning_content": thought} if thought else {})
    return [*found, {"role": str(message.role), "content": text} | more]


class Calls:
    """Takes calls out of the text of an answer and adds them to the response.

    :param tools: without any, text is text.
    """

    def __init__(self, response: Any, tools: "Sequence[Tool]", choice: "LoadChoice") -> None:
        self._response = response
        self._tools = tools
        self._choice = choice
        self._reader: Any = None
        self._id = ""

    def told(self, said: str, last: bool) -> "Iterator[str | StreamEvent]":
        """The text without calls, and the names and arguments of these, as far as they are sure.

        A tool that there is not is left to llm, which tells the model so.

        :raises RequestError: at the end of an answer in which a call is none.
        """
        if not self._tools:
            yield from [said] if said else []
            return
        from dllm_plugins.tools.reading import CallReader
        from llm_dllm.loading import answering

        if self._reader is None:
            self._reader = CallReader(answering(self._choice).model.call_form(), None)
        for part in self._reader.push(said) + (self._reader.end() if last else []):
            yield from [part] if isinstance(part, str) else self._of_call(part)

    def _of_call(self, part: "Began | Piece | Call | Malformed") -> "Iterator[StreamEvent]":
        from llm.parts import StreamEvent

        from dllm_plugins.tools.calls import Began
        from dllm_plugins.tools.calls import Malformed
        from dllm_plugins.tools.calls import Piece

        if isinstance(part, Malformed):
            raise RequestError(
                f"the model called a tool in a way that cannot be read ({part.error}): {part.text}; ask again, "
                f"raise max_tokens if the call is cut short, or leave the tools out"
            )
        if isinstance(part, Piece):
            yield StreamEvent("tool_call_args", part.text, tool_call_id=self._id)
            return
        if not self._id:
            self._id = f"call_{uuid4().hex}"
            yield StreamEvent("tool_call_name", part.name, tool_call_id=self._id)
        if isinstance(part, Began):
            return
        call, self._id = llm.ToolCall(name=part.name, arguments=dict(part.arguments), tool_call_id=self._id), ""
        self._response.add_tool_call(call)
