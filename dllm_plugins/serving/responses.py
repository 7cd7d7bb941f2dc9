"""Requests to /v1/responses, as far as there is nothing to remember between them."""

from typing import Annotated
from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import Field
from pydantic import field_validator

from dllm_plugins.config import MOST_ALTERNATIVES
from dllm_plugins.messages import Dialect
from dllm_plugins.models import Model
from dllm_plugins.serving.chat import format_of
from dllm_plugins.serving.chat import text_of
from dllm_plugins.serving.chat import toolkit_of
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.errors import dialect
from dllm_plugins.serving.fields import RequestFields
from dllm_plugins.serving.fields import StreamOptions
from dllm_plugins.serving.fields import Strict
from dllm_plugins.serving.work import Work
from dllm_plugins.serving.work import chat_work
from dllm_plugins.text.marks import FIELD as THOUGHT

_DIALECT = dialect(max_new_tokens="max_output_tokens", logprobs="top_logprobs", constraint="text.format")


class Said(Strict):
    """A message of either side; a former answer has an id and a status, which say nothing to the model."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> str:
        return text_of(value, ("input_text", "output_text", "text"))

    def turns(self) -> list[dict[str, Any]]:
        """As chat templates take it."""
        return [{"role": "system" if self.role == "developer" else self.role, "content": self.content}]


class Thought(Strict):
    """What the model has thought; a summary of that, or what only another model can read, says nothing to this one."""

    type: Literal["reasoning"]
    content: str = ""
    summary: list[dict[str, Any]] | None = None
    encrypted_content: str | None = None
    id: str | None = None
    status: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> str:
        return text_of(value, ("reasoning_text",))

    def turns(self) -> list[dict[str, Any]]:
        """As chat templates take it."""
        return [{"role": "assistant", "content": "", THOUGHT: self.content}] if self.content else []


class Called(Strict):
    """A call that the model has made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None

    def turns(self) -> list[dict[str, Any]]:
        """As chat templates take it."""
        call = {
            "id": self.call_id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return [{"role": "assistant", "content": "", "tool_calls": [call]}]


class Returned(Strict):
    """What a call has returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: str | None = None
    status: str | None = None

    def turns(self) -> list[dict[str, Any]]:
        """As chat templates take it."""
        return [{"role": "tool", "tool_call_id": self.call_id, "content": self.output}]


class FlatTool(Strict):
    """A function that may be called, in this interface's form."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(Strict):
    """What the answer's text must be."""

    format: dict[str, Any] | None = None


class ResponseRequest(RequestFields):
    """A request to /v1/responses."""

    field: ClassVar[str] = "input"

    input: str | list[Thought | Called | Returned | Said] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)
    text: TextOptions | None = None
    tools: list[FlatTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None

    @property
    def dialect(self) -> Dialect:
        """What this interface calls otherwise."""
        return _DIALECT

    def work(self, model: Model) -> Work:
        """What is asked of a model.

        :raises DllmError: for what cannot be asked of it.
        """
        given = None if self.text is None or self.text.format is None else dict(self.text.format)
        config = self.sampling(
            max_new_tokens=self.max_output_tokens,
            logprobs=self.top_logprobs,
            constraint=format_of(_nested(given), "text.format"),
        )
        functions = [
            {"type": "function", "function": tool.model_dump(exclude_none=True, exclude={"type"})}
            for tool in self.tools or ()
        ]
        kit = toolkit_of(functions, self.tool_choice, self.parallel_tool_calls)
        return chat_work(model, self._chat(), config, 1, self.draft_events, kit, self.thinking)

    def _chat(self) -> list[dict[str, Any]]:
        said = list[dict[str, Any]]()
        if self.instructions is not None:
            said.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*said, {"role": "user", "content": self.input}]
        for item in self.input:
            for turn in item.turns():
                if said and _goes_on(said[-1], turn):
                    said[-1] = _joined(said[-1], turn)
                else:
                    said.append(turn)
        return said


def _goes_on(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a model thinks, says or calls the second in one go with the first."""
    both = one["role"] == other["role"] == "assistant"
    return both and ("tool_calls" in other or not (one["content"] or "tool_calls" in one))


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two turns as one."""
    calls = [*one.get("tool_calls", ()), *other.get("tool_calls", ())]
    return one | other | {"content": one["content"] + other["content"]} | ({"tool_calls": calls} if calls else {})


def _nested(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """A format as the other interface has it, where the schema stands one level further down.

    :raises ApiError: for a schema without its name's company.
    """
    if given is None or given.get("type") != "json_schema":
        return given
    if "schema" not in given:
        raise ApiError(400, "text.format of type json_schema has no schema", param="text.format")
    return {"type": "json_schema", "json_schema": {name: given[name] for name in given if name != "type"}}
