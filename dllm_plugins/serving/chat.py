"""Requests to /v1/chat/completions."""

from typing import Any
from typing import Literal

from pydantic import Field
from pydantic import field_validator
from pydantic import model_validator

from dllm_plugins.config import MOST_ALTERNATIVES
from dllm_plugins.constraints.response_format import asked_by
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.errors import told
from dllm_plugins.serving.fields import Sampled
from dllm_plugins.serving.fields import Strict
from dllm_plugins.serving.fields import alternatives
from dllm_plugins.serving.work import Work
from dllm_plugins.serving.work import chat_work
from dllm_plugins.text.marks import FIELD as THOUGHT
from dllm_plugins.tools.tool import AUTO
from dllm_plugins.tools.tool import NONE
from dllm_plugins.tools.tool import Tool
from dllm_plugins.tools.tool import choice_of
from dllm_plugins.tools.tool import tools_of


def text_of(content: Any, kinds: tuple[str, ...] = ("text",)) -> str:
    """A message's content: a text, or parts that are texts.

    :raises ValueError: for anything else.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("give a text, or a list of parts that are texts")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in kinds or not isinstance(part.get("text"), str):
            raise ValueError(f"these models read text only, not {shown(part)}; leave it out")
    return "".join(part["text"] for part in content)


class Function(Strict):
    """What a call calls; its arguments are JSON."""

    name: str
    arguments: str


class ToolCall(Strict):
    """A call in a message of the assistant."""

    id: str
    type: Literal["function"] = "function"
    function: Function
    index: int | None = None


class Message(Strict):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str = ""
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> str:
        return text_of(value)

    @model_validator(mode="after")
    def _who_thinks(self) -> "Message":
        if self.role != "assistant" and (self.reasoning_content or self.reasoning):
            raise ValueError(f"only an assistant's message has reasoning_content, not one of role {self.role!r}")
        return self

    def turn(self) -> dict[str, Any]:
        """As chat templates take it. Developers speak as systems do: most templates know no other."""
        role = "system" if self.role == "developer" else self.role
        found: dict[str, Any] = {"role": role, "content": self.content}
        given = {"name": self.name, "tool_call_id": self.tool_call_id}
        found |= {name: value for name, value in given.items() if value is not None}
        if thought := self.reasoning_content or self.reasoning:
            found[THOUGHT] = thought
        if self.tool_calls:
            found["tool_calls"] = [call.model_dump(exclude={"index"}) for call in self.tool_calls]
        return found


class Described(Strict):
    """A function that may be called. Calls keep to its schema whether or not `strict` says so."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Strict):
    """A tool; there are no others."""

    type: Literal["function"]
    function: Described


class ChatRequest(Sampled):
    """A request to /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    response_format: dict[str, Any] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    def work(self, model: Model) -> Work:
        """What is asked of a model.

        :raises DllmError: for what cannot be asked of it.
        """
        config = self.sampling(
            max_new_tokens=self._length(),
            seed=self.seed,
            stop=self.stops,
            logprobs=alternatives(self.logprobs, self.top_logprobs),
            constraint=format_of(self.response_format, "response_format"),
        )
        functions = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        kit = toolkit_of(functions, self.tool_choice, self.parallel_tool_calls)
        chat = [message.turn() for message in self.messages]
        return chat_work(model, chat, config, self.n or 1, self.draft_events, kit, self.thinking)

    def _length(self) -> int | None:
        one, other = self.max_completion_tokens, self.max_tokens
        if one is not None and other is not None and one != other:
            raise ApiError(
                400, f"max_completion_tokens={one} contradicts max_tokens={other}; give one", param="max_tokens"
            )
        return other if one is None else one


def format_of(given: Any, field: str) -> Any:
    """The constraint that a format is.

    :param field: what it is called.
    :raises ApiError: for what is none.
    """
    try:
        return None if given is None else asked_by(given)
    except OptionError as error:
        raise ApiError(400, str(told(error)), param=field) from error


def toolkit_of(
    functions: list[dict[str, Any]], choice: Any, parallel: bool | None
) -> tuple[tuple[Tool, ...], str, bool | None]:
    """The tools of a request, what is to be called, and whether several calls may be.

    :raises ApiError: for what is no tool, and a choice that there is not.
    """
    try:
        tools = tools_of(functions)
    except OptionError as error:
        raise ApiError(400, str(error), param="tools") from error
    try:
        chosen = choice_of(choice, tools)
    except OptionError as error:
        raise ApiError(400, str(error), param="tool_choice") from error
    if parallel is not None and not tools:
        raise ApiError(400, "parallel_tool_calls is about tools, and there are none", param="parallel_tool_calls")
    return (tools, chosen, parallel) if chosen != NONE else ((), AUTO, None)
