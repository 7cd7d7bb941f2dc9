"""The llm model classes."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import contextmanager
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
from llm_dllm.loading import Choice
from llm_dllm.loading import loaded_model
from llm_dllm.tools import Calls
from llm_dllm.tools import messages_of
from llm_dllm.tools import tools_of
from llm_dllm.waiting import waiting

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.events import Event
    from dllm_plugins.events import Finish
    from dllm_plugins.events import Usage
    from dllm_plugins.models import Model
    from dllm_plugins.request import Request
    from dllm_plugins.tools.tool import Tool


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


def tokens_of(model: "Model", chat: list[dict[str, Any]], name: str, tools: "Sequence[Tool]" = ()) -> list[int]:
    """Prompt ids: by the chat template, or of the plain text if a base checkpoint has none.

    :param name: what llm calls the model.
    :param tools: what it may call.
    :raises RequestError: for an empty prompt, and for a conversation that needs a template.
    """
    if model.tokenizer.chat_template or not chat or not chat[-1]["content"].strip():
        return model.encode_chat(chat, tools)
    if tools or [message["role"] for message in chat] != ["user"]:
        raise RequestError(
            f"{name} has no chat template: it goes on from one text, without system prompt, history or tools; start a "
            f"new conversation without them, or use an instruct checkpoint"
        )
    return model.encode_text(chat[0]["content"])


def config_of(prompt: llm.Prompt) -> "SamplingConfig":
    """The engine's options of a prompt, its schema among them.

    :raises OptionError: for a value out of range.
    """
    from llm_dllm.options import to_config

    schema: Any = prompt.schema
    return to_config(prompt.options, schema)


def suffix_of(prompt: llm.Prompt) -> str | None:
    """The text behind the gap that an answer is to fill, if that was asked for."""
    found: str | None = getattr(prompt.options, "suffix", None)
    return found


def request_of(
    model: "Model",
    chat: list[dict[str, Any]],
    config: "SamplingConfig",
    name: str,
    suffix: str | None,
    tools: "Sequence[Tool]" = (),
) -> "Request":
    """What the engine is asked.

    :param name: what llm calls the model.
    :param suffix: text behind a gap, which the answer then fills.
    :param tools: what the answer may call.
    :raises OptionError: for a suffix beside tools.
    """
    from dllm_plugins.request import Request
    from llm_dllm.gaps import request_before

    if suffix is not None and tools:
        raise OptionError(f"-o suffix {suffix!r} has no meaning beside tools; leave one of the two out")
    if suffix is not None:
        return request_before(model, chat, config, suffix)
    return Request(tokens_of(model, chat, name, tools), model.with_tools(config, tools))


def events(
    chat: list[dict[str, Any]],
    config: "SamplingConfig",
    choice: Choice = DEFAULT,
    suffix: str | None = None,
    tools: "Sequence[Tool]" = (),
) -> "Generator[Event, None, None]":
    """Events of one answer; closing the generator frees its row at once."""
    shared = loaded_model(choice)
    yield from shared.stream(request_of(shared.model, chat, config, choice.model_id, suffix, tools))


async def _aevents(
    chat: list[dict[str, Any]],
    config: "SamplingConfig",
    choice: Choice,
    suffix: str | None,
    tools: "Sequence[Tool]",
) -> "AsyncGenerator[Event, None]":
    """Like :func:`events`, with loading, tokenising and passes in threads."""
    shared = await asyncio.to_thread(loaded_model, choice)
    request = await asyncio.to_thread(request_of, shared.model, chat, config, choice.model_id, suffix, tools)
    async with aclosing(shared.astream(request)) as source:
        async for event in source:
            yield event


def _report(response: Any, finish: "Finish", choice: Choice) -> None:
    """Usage and the engine's statistics, for llm's log; whoever runs a command is told of an answer that was cut."""
    usage = finish.usage
    if click.get_current_context(silent=True) is not None:
        if finish.reason == "context":
            click.echo(f"\n{cut_short(usage)}", err=True)
        if finish.reason == "stop" and response.prompt.schema:
            click.echo("\nA stop string has ended the answer before it was complete JSON; leave stop out.", err=True)
    response.set_usage(
        input=usage.prompt_tokens, output=usage.useful_tokens, details={"cached_tokens": usage.cached_tokens}
    )
    response.response_json = usage.as_dict() | {"finish_reason": finish.reason}
    if finish.logprobs is not None:
        from dllm_plugins.text.said import openai_shape

        said = finish.logprobs[: len(finish.tokens)]
        response.response_json["logprobs"] = openai_shape(said, loaded_model(choice).model.tokenizer)


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


def _text_of(
    event: "Event",
    stream: bool,
    response: "llm.Response | llm.AsyncResponse",
    arrived: Callable[[], None],
    choice: Choice,
) -> str | None:
    """What is handed out at an event: text that is committed, or all of it at the end; None for nothing."""
    from dllm_plugins.events import Commit
    from dllm_plugins.events import Finish

    # Of a template the answer is what fills its gap.
    gaps = [gap if isinstance(gap, str) else gap.text for gap in getattr(event, "gaps", ())]
    text = "".join(gaps) if gaps else getattr(event, "text", "")
    if isinstance(event, Commit) and stream and text:
        arrived()
        return text
    if not isinstance(event, Finish):
        return None
    arrived()
    _report(response, event, choice)
    return None if stream else text


def is_last(event: "Event") -> bool:
    """Whether it ends the answer."""
    from dllm_plugins.events import Finish

    return isinstance(event, Finish)


class _Chosen:
    """A model of dllm-plugins.

    :param choice: what it loads at its first prompt; the default model if not given.
    """

    can_stream = True
    supports_schema = True
    supports_tools = True

    def __init__(self, choice: Choice = DEFAULT) -> None:
        self.choice = choice
        self.model_id = choice.model_id


class DLLM(_Chosen, llm.Model):
    """A model of dllm-plugins for llm."""

    Options = _LazyOptions()  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Yield committed text; drafts are shown by `llm dllm watch` only."""
        with clean_errors(), waiting(self.model_id) as arrived:
            tools = tools_of(prompt)
            calls = Calls(response, tools, self.choice)
            for event in events(chat_of(prompt), config_of(prompt), self.choice, suffix_of(prompt), tools):
                text = _text_of(event, stream, response, arrived, self.choice)
                if text := calls.text(text or "", last=is_last(event)):
                    yield text


class AsyncDLLM(_Chosen, llm.AsyncModel):
    """The same model for asyncio: every pass runs in a thread, the event loop goes on."""

    Options = _LazyOptions()  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> AsyncGenerator[str, None]:
        """See :meth:`DLLM.execute`."""
        with clean_errors(), waiting(self.model_id) as arrived:
            tools = tools_of(prompt)
            calls = Calls(response, tools, self.choice)
            asked = _aevents(chat_of(prompt), config_of(prompt), self.choice, suffix_of(prompt), tools)
            async with aclosing(asked) as source:
                async for event in source:
                    text = _text_of(event, stream, response, arrived, self.choice)
                    if text := calls.text(text or "", last=is_last(event)):
                        yield text
