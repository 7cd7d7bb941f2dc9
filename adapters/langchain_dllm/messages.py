"""LangChain messages to a chat template's roles and texts, and results back."""

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
from langchain_core.messages.ai import InputTokenDetails
from langchain_core.messages.ai import UsageMetadata

from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import TokenLogprob
from dllm_plugins.text.said import openai_shape
from langchain_dllm.call import Call
from langchain_dllm.calling import message_of
from langchain_dllm.calling import more_of


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
    return "".join(_block_text(block) for block in message.content)


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
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.useful_tokens,
        total_tokens=usage.prompt_tokens + usage.useful_tokens,
        input_token_details=InputTokenDetails(cache_read=usage.cached_tokens),
    )


@dataclass(frozen=True, slots=True)
class Teller:
    """Tells of answers to one call.

    :param tokenizer: the model's own, which says what tokens stand for.
    """

    call: Call
    tokenizer: Any

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
        told = streamed and self.call.config.logprobs_at != "final"
        if finish.logprobs is None or told:
            return found
        return found | self.logprobs(finish.logprobs[: len(finish.tokens)])

    def logprobs(self, said: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Log-probabilities of an answer's tokens, where OpenAI's models have them."""
        return {"logprobs": openai_shape(said, self.tokenizer)}

    def new_logprobs(self, commit: Commit) -> dict[str, Any]:
        """Those of tokens that have just become final, if a stream tells them as it goes."""
        if not commit.logprobs or self.call.config.logprobs_at == "final":
            return {}
        return self.logprobs(commit.logprobs)

    def answer(self, finish: Finish) -> AIMessage:
        """The whole answer."""
        told = {"usage_metadata": usage_of(finish), "response_metadata": self.metadata(finish)}
        return message_of(finish.text, self.call.as_tool, **told)

    def chunk(self, event: Event) -> AIMessageChunk | None:
        """What an event adds to a streamed answer: committed text, or the figures at its end."""
        if isinstance(event, Commit):
            said = self.new_logprobs(event)
            return more_of(event.text, self.call.as_tool, response_metadata=said) if event.text or said else None
        if isinstance(event, Finish):
            return AIMessageChunk(
                content="",
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
