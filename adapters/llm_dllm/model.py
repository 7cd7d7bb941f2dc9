"""The llm model classes."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import click
import llm

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.errors import calling
from llm_dllm.dialect import LLM
from llm_dllm.loading import DEFAULT
from llm_dllm.loading import LoadChoice
from llm_dllm.loading import answering
from llm_dllm.tools import Calls
from llm_dllm.tools import messages_of
from llm_dllm.tools import tools_of
from llm_dllm.waiting import waiting

if TYPE_CHECKING:
    from llm.parts import StreamEvent

    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.events import Event
    from dllm_plugins.events import Finish
    from dllm_plugins.events import Usage
    from dllm_plugins.models import Model
    from dllm_plugins.request import Request
    from dllm_plugins.tools.tool import Tool
    from dllm_plugins.warm.model import WarmModel


@contextmanager
def clean_errors() -> Iterator[None]:
    """Show our errors as llm shows its own: one line, no traceback."""
    try:
        with calling(LLM):
            yield
    except DllmError as error:
        raise llm.ModelError(str(error)) from error


def chat_of(prompt: llm.Prompt) -> list[dict[str, Any]]:
    """The whole conversation as messages: system prompt and history, calls of tools and what they returned.

    :raises RequestError: if a message holds anything else but text.
    """
    return [told for message in prompt.messages for told in messages_of(message)]


def config_of(prompt: llm.Prompt) -> "SamplingConfig":
    """The engine's options of a prompt, its schema among them.

    :raises OptionError: for a value out of range.
    """
    from llm_dllm.options import to_config

    schema: Any = prompt.schema
    return to_config(prompt.options, schema)


@dataclass(frozen=True, slots=True)
class Extras:
    """What a prompt asks for besides the engine's options.

    :param suffix: text behind a gap, which the answer then fills.
    :param tools: what the answer may call.
    :param thinking: whether the model is to think; None leaves that to its chat template.
    """

    suffix: str | None = None
    tools: "Sequence[Tool]" = ()
    thinking: bool | None = None


NOTHING = Extras()


def extras_of(prompt: llm.Prompt) -> Extras:
    """That of a prompt.

    :raises OptionError: for a tool whose name or schema cannot be used.
    """
    options: Any = prompt.options
    return Extras(getattr(options, "suffix", None), tools_of(prompt), getattr(options, "thinking", None))


def request_of(
    model: "Model | WarmModel", chat: list[dict[str, Any]], config: "SamplingConfig", name: str, extras: Extras
) -> "Request":
    """What the engine is asked: by the chat template, or to go on from the plain text if a base checkpoint has none.

    :param name: what llm calls the model.
    :raises OptionError: for a suffix beside tools or thinking.
    :raises RequestError: for an empty prompt, and for a conversation that needs a template.
    """
    from llm_dllm.gaps import request_before

    if extras.suffix is not None:
        if extras.tools or extras.thinking is not None:
            beside = "tools" if extras.tools else f"-o thinking {str(extras.thinking).lower()}"
            raise OptionError(f"-o suffix {extras.suffix!r} has no meaning beside {beside}; leave one of the two out")
        return request_before(model, chat, config, extras.suffix)
    if model.chats or not chat or not chat[-1]["content"].strip():
        return model.chat_request(chat, config, extras.tools, thinking=extras.thinking)
    if extras.tools or extras.thinking is not None or [message["role"] for message in chat] != ["user"]:
        raise RequestError(
            f"{name} has no chat template: it goes on from one text, without system prompt, history, tools or "
            f"thinking; start a new conversation without them, or use an instruct checkpoint"
        )
    return model.text_request(chat[0]["content"], config)


def events(
    chat: list[dict[str, Any]], config: "SamplingConfig", choice: LoadChoice = DEFAULT, extras: Extras = NOTHING
) -> "Generator[Event, None, None]":
    """Events of one answer; closing the generator frees its row at once."""
    shared = answering(choice)
    yield from shared.stream(request_of(shared.model, chat, config, choice.model_id, extras))


async def _aevents(
    chat: list[dict[str, Any]], config: "SamplingConfig", choice: LoadChoice, extras: Extras
) -> "AsyncGenerator[Event, None]":
    """Like :func:`events`, with loading, tokenising and passes in threads."""
    shared = await asyncio.to_thread(answering, choice)
    request = await asyncio.to_thread(request_of, shared.model, chat, config, choice.model_id, extras)
    async with aclosing(shared.astream(request)) as source:
        async for event in source:
            yield event


def _report(response: Any, finish: "Finish", choice: LoadChoice) -> None:
    """Usage and the engine's statistics, for llm's log; whoever runs a command is told of an answer that was cut."""
    usage = finish.usage
    if click.get_current_context(silent=True) is not None:
        if finish.reason == "context":
            click.echo(f"\n{cut_short(usage)}", err=True)
        if finish.reason == "stop" and response.prompt.schema:
            click.echo("\nA stop string has ended the answer before it was complete JSON; leave stop out.", err=True)
    details = {"cached_tokens": usage.cached_tokens, "reasoning_tokens": usage.reasoning_tokens}
    known = {name: count for name, count in details.items() if count is not None}
    response.set_usage(input=usage.prompt_tokens, output=usage.useful_tokens, details=known)
    response.response_json = usage.as_dict() | {"finish_reason": finish.reason}
    if finish.logprobs is not None:
        from dllm_plugins.text.said import openai_shape

        said = finish.logprobs[: len(finish.tokens)]
        response.response_json["logprobs"] = openai_shape(said, answering(choice).model.tokenizer)


def cut_short(usage: "Usage") -> str:
    """What is said of an answer that the model's context has ended."""
    return (
        f"The context is full: {usage.prompt_tokens} tokens of the prompt and {usage.useful_tokens} of the answer, "
        f"which ends here, before max_tokens; begin a new conversation, or shorten the prompt."
    )


class _LazyOptions:
    """The class of options, where llm looks for it; making it takes longer than all else that llm imports of ours."""

    def __get__(self, model: object, owner: type) -> type[llm.Options]:
        from llm_dllm.options import Options

        return Options


def _text_of(event: "Event", stream: bool) -> tuple[str, str]:
    """What is handed out at an event, thought and said: what is committed, or all of it at the end."""
    from dllm_plugins.events import Commit
    from dllm_plugins.events import Finish

    if not isinstance(event, Commit if stream else Finish):
        return "", ""
    # Of a template the answer is what fills its gap.
    gaps = [gap if isinstance(gap, str) else gap.text for gap in event.gaps]
    return event.reasoning, "".join(gaps) if gaps else event.text


class _Telling:
    """Tells llm of the events of one answer.

    :param arrived: called when something has come.
    """

    def __init__(
        self, response: Any, stream: bool, choice: LoadChoice, tools: "Sequence[Tool]", arrived: Callable[[], None]
    ) -> None:
        self._response = response
        self._stream = stream
        self._choice = choice
        self._arrived = arrived
        self._calls = Calls(response, tools, choice)

    def told(self, event: "Event") -> "Iterator[str | StreamEvent]":
        """What an event adds: thinking, text, calls; and figures at the end."""
        from llm.parts import StreamEvent

        from dllm_plugins.events import Finish

        thought, text = _text_of(event, self._stream)
        if thought or text:
            self._arrived()
        if isinstance(event, Finish):
            self._arrived()
            _report(self._response, event, self._choice)
        if thought:
            yield StreamEvent("reasoning", thought)
        yield from self._calls.told(text, last=isinstance(event, Finish))


class _Chosen:
    """A model of dllm-plugins.

    :param choice: what it loads at its first prompt; the default model if not given.
    """

    can_stream = True
    supports_schema = True
    supports_tools = True

    def __init__(self, choice: LoadChoice = DEFAULT) -> None:
        self.choice = choice
        self.model_id = choice.model_id


class DLLM(_Chosen, llm.Model):
    """A model of dllm-plugins for llm."""

    Options = _LazyOptions()  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> "Iterator[str | StreamEvent]":
        """Yield committed text; drafts are shown by `llm dllm watch` only."""
        with clean_errors(), waiting(self.model_id) as arrived:
            extras = extras_of(prompt)
            telling = _Telling(response, stream, self.choice, extras.tools, arrived)
            for event in events(chat_of(prompt), config_of(prompt), self.choice, extras):
                yield from telling.told(event)


class AsyncDLLM(_Chosen, llm.AsyncModel):
    """The same model for asyncio: every pass runs in a thread, the event loop goes on."""

    Options = _LazyOptions()  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> "AsyncGenerator[str | StreamEvent, None]":
        """See :meth:`DLLM.execute`."""
        with clean_errors(), waiting(self.model_id) as arrived:
            extras = extras_of(prompt)
            telling = _Telling(response, stream, self.choice, extras.tools, arrived)
            async with aclosing(_aevents(chat_of(prompt), config_of(prompt), self.choice, extras)) as source:
                async for event in source:
                    for told in telling.told(event):
                        yield told
