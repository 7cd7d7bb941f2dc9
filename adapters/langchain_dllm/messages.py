"""LangChain messages to a chat template's roles and texts, and results back."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages import BaseMessage
from langchain_core.messages import ChatMessage
from langchain_core.messages import HumanMessage
from langchain_core.messages import SystemMessage
from langchain_core.messages.ai import UsageMetadata

from dllm_plugins.errors import RequestError
from dllm_plugins.events import Finish


def chat_of(messages: Sequence[BaseMessage]) -> list[dict[str, str]]:
    """Role and text of each message.

    :raises RequestError: for tool messages, tool calls and content that is not text.
    """
    return [{"role": _role(message), "content": _text(message)} for message in messages]


def _role(message: BaseMessage) -> str:
    if isinstance(message, AIMessage):
        if message.tool_calls:
            raise RequestError("a message holds tool calls, which ChatDLLM does not support; leave them out")
        return "assistant"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, ChatMessage) and message.role in ("user", "assistant", "system"):
        return message.role
    raise RequestError(f"ChatDLLM reads system, human and AI messages, not {type(message).__name__}; leave it out")


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    for block in message.content:
        kind = "text" if isinstance(block, str) else block.get("type")
        if kind != "text":
            raise RequestError(f"ChatDLLM reads text only, not a content block of type {kind!r}; leave it out")
    return "".join(block if isinstance(block, str) else str(block["text"]) for block in message.content)


def usage_of(finish: Finish) -> UsageMetadata:
    """Token counts as LangChain wants them."""
    prompt, answer = finish.usage.prompt_tokens, finish.usage.useful_tokens
    return UsageMetadata(input_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer)


def metadata_of(finish: Finish, model_name: str) -> dict[str, Any]:
    """The engine's statistics."""
    return {"model_name": model_name, "finish_reason": finish.reason, "statistics": finish.usage.as_dict()}
