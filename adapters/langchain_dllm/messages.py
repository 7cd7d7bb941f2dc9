"""LangChain messages to a chat template's roles and texts, and results back."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import BaseMessage
from langchain_core.messages import ChatMessage
from langchain_core.messages import HumanMessage
from langchain_core.messages import SystemMessage
from langchain_core.messages import ToolMessage
from langchain_core.messages.ai import InputTokenDetails
from langchain_core.messages.ai import OutputTokenDetails
from langchain_core.messages.ai import UsageMetadata

from dllm_plugins.edits import changes_of
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import TokenLogprob
from dllm_plugins.text.said import openai_shape
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.reading import CallReader
from dllm_plugins.tools.reading import read
from langchain_dllm.call import Call
from langchain_dllm.calling import end_of
from langchain_dllm.calling import message_of
from langchain_dllm.calling import more_of
from langchain_dllm.toolkit import StreamedCalls
from langchain_dllm.toolkit import called

#: Blocks that say once more what stands in `tool_calls`, as other models' messages have them.
_OF_CALLS = ("tool_call", "tool_use", "tool_call_chunk", "function_call", "input_json_delta", "invalid_tool_call")

#: Blocks of what an answer thought, and the key under which partners of LangChain keep it.
_OF_THINKING = ("reasoning", "thinking", "redacted_thinking")
THOUGHT = "reasoning_content"


def chat_of(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Role and text of each message, with calls and what they are answers to.

    :raises RequestError: for content that is not text.
    """
    return [
        {"role": _role(message), "content": _text(message), **_of_tools(message), **_of_thinking(message)}
        for message in messages
    ]


def _of_thinking(message: BaseMessage) -> dict[str, str]:
    """What an answer thought before it said something, wherever other models' messages have it."""
    if not isinstance(message, AIMessage):
        return {}
    blocks = [block for block in message.content if isinstance(block, dict)]
    told = [block.get(str(block["type"])) for block in blocks if block.get("type") in _OF_THINKING]
    thought = "".join(text for text in told if isinstance(text, str)) or message.additional_kwargs.get(THOUGHT)
    return {THOUGHT: thought} if thought and isinstance(thought, str) else {}


def thought_of(event: Commit | Finish) -> dict[str, str]:
    """What an event tells of thinking, under the name by which LangChain makes a block of it."""
    return {THOUGHT: event.reasoning} if event.reasoning else {}


def _of_tools(message: BaseMessage) -> dict[str, Any]:
    """What a message calls, or which call it answers."""
    if isinstance(message, ToolMessage):
        return {"tool_call_id": message.tool_call_id} | ({"name": message.name} if message.name else {})
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return {}
    calls = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["args"]}}
        for call in message.tool_calls
    ]
    return {"tool_calls": calls}


def _role(message: BaseMessage) -> str:
    if isinstance(message, AIMessage):
        return "assistant"
    if isinstance(message, ToolMessage):
        return "tool"
    if isinstance(message, SystemMessage):
        return "system"
    if isinstance(message, HumanMessage):
        return "user"
    if isinstance(message, ChatMessage) and message.role in ("user", "assistant", "system"):
        return message.role
    raise RequestError(
        f"ChatDLLM reads system, human, AI and tool messages, not {type(message).__name__}; leave it out"
    )


def _text(message: BaseMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    unsaid = (*_OF_CALLS, *_OF_THINKING) if isinstance(message, AIMessage) else _OF_CALLS
    blocks = [block for block in message.content if isinstance(block, str) or block.get("type") not in unsaid]
    return "".join(map(_block_text, blocks))


def _block_text(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    if block.get("type") != "text":
        raise RequestError(f"ChatDLLM reads text only, not a content block of type {block.get('type')!r}; leave it out")
    if not isinstance(block.get("text"), str):
        raise RequestError(f"the text block {block!r} has no text; leave it out")
    return str(block["text"])


def usage_of(finish: Finish) -> UsageMetadata:
    """Token counts as LangChain wants them; `cache_read` came from an earlier answer's prefix."""
    usage = finish.usage
    found = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.useful_tokens,
        total_tokens=usage.prompt_tokens + usage.useful_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )
    if usage.reasoning_tokens is not None:
        found["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return found


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells of answers to one call.

    :param tokenizer: the model's own, which says what tokens stand for.
    :param form: how the model writes calls, if the call has tools.
    """

    call: Call
    tokenizer: Any
    form: CallFormat | None = None

    def metadata(self, finish: Finish, *, streamed: bool = False) -> dict[str, Any]:
        """The engine's statistics, and log-probabilities if the call asks for them.

        :param streamed: the chunks before have told of those of settling.
        """
        found: dict[str, Any] = {
            "model_name": self.call.model_name,
            "finish_reason": finish.reason,
            "statistics": finish.usage.as_dict(),
        }
        if finish.gaps:
            found["gaps"] = [gap.text for gap in finish.gaps]
        if self.call.spans is not None:
            found["edits"] = [change.as_dict() for change in changes_of(self.call.spans, finish.gaps)]
        told = streamed and self.call.config.logprobs_at != "final"
        if finish.logprobs is None or told or self.call.config.logprobs is None:
            return found
        return found | self.logprobs(finish.logprobs[: len(finish.tokens)])

    def logprobs(self, said: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Log-probabilities of an answer's tokens, where OpenAI's models have them."""
        return {"logprobs": openai_shape(said, self.tokenizer)}

    def new_logprobs(self, commit: Commit) -> dict[str, Any]:
        """Those of tokens that have just become final, if a stream tells them as it goes."""
        config = self.call.config
        if not commit.logprobs or config.logprobs is None or config.logprobs_at == "final":
            return {}
        return self.logprobs(commit.logprobs)

    def answer(self, finish: Finish) -> AIMessage:
        """The whole answer."""
        figures: dict[str, Any] = {
            "usage_metadata": usage_of(finish),
            "response_metadata": self.metadata(finish),
            "additional_kwargs": thought_of(finish),
        }
        if self.form is None or self.call.toolkit is None:
            return message_of(finish.text, self.call.as_tool, **figures)
        reply = read(finish.text, self.form, self.call.toolkit.names)
        return AIMessage(reply.text, **called(reply), **figures)

    def stream(self) -> Callable[[Event], AIMessageChunk | None]:
        """What turns the events of one streamed answer into chunks."""
        if self.form is None or self.call.toolkit is None:
            return self.chunk
        calls = StreamedCalls(CallReader(self.form, self.call.toolkit.names))

        def chunk(event: Event) -> AIMessageChunk | None:
            found = self.chunk(event)
            return None if found is None else calls.within(found)

        return chunk

    def chunk(self, event: Event) -> AIMessageChunk | None:
        """What an event adds to a streamed answer: committed text, or the figures at its end."""
        if isinstance(event, Commit):
            said, thought = self.new_logprobs(event), thought_of(event)
            if not event.text and not said and not thought:
                return None
            return more_of(event.text, self.call.as_tool, response_metadata=said, additional_kwargs=thought)
        if isinstance(event, Finish):
            return end_of(
                event.text,
                self.call.as_tool,
                usage_metadata=usage_of(event),
                response_metadata=self.metadata(event, streamed=True),
                chunk_position="last",
            )
        return None


def totals_of(usages: Iterable[UsageMetadata | dict[str, Any]]) -> dict[str, int]:
    """The sum of several answers' token counts, for LangChain's `llm_output`."""
    totals = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
    for usage in usages:
        for name in totals:
            totals[name] += dict(usage).get(name, 0)
    return totals
