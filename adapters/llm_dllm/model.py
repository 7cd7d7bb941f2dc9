"""The llm model classes."""

import asyncio
import os
from collections.abc import AsyncGenerator
from collections.abc import Generator
from collections.abc import Iterator
from contextlib import aclosing
from contextlib import contextmanager
from typing import TYPE_CHECKING
from typing import Any

import llm
from llm.parts import TextPart

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from llm_dllm.options import Options
from llm_dllm.options import to_config

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.sharing import SharedModel

#: Environment variables that choose what is loaded.
ENVIRONMENT = {
    "base": "DLLM_BASE",
    "denoiser": "DLLM_DENOISER",
    "dtype": "DLLM_DTYPE",
    "device": "DLLM_DEVICE",
}
_held: "list[SharedModel]" = []


@contextmanager
def clean_errors() -> Iterator[None]:
    """Show our errors as llm shows its own: one line, no traceback."""
    try:
        yield
    except DllmError as error:
        raise llm.ModelError(str(error)) from error


def load_options() -> dict[str, str]:
    """Arguments of `load_model` that the environment gives."""
    return {name: os.environ[variable] for name, variable in ENVIRONMENT.items() if os.environ.get(variable)}


def loaded_model() -> "SharedModel":
    """The model, kept until the process ends or the environment asks for another one."""
    from dllm_plugins.sharing import shared_model

    found = shared_model("dllm", **load_options())
    _held[:] = [found]
    return found


def chat_of(prompt: llm.Prompt) -> list[dict[str, str]]:
    """The whole conversation, system prompt and history included, as role and content.

    :raises RequestError: if a message holds anything but text.
    """
    chat = []
    for message in prompt.messages:
        for part in message.parts:
            if not isinstance(part, TextPart):
                raise RequestError(f"the default model reads text only, not {type(part).__name__}; leave it out")
        text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
        chat.append({"role": str(message.role), "content": text})
    return chat


def events(chat: list[dict[str, str]], config: "SamplingConfig") -> Generator[Event, None, None]:
    """Events of one answer; closing the generator frees its row at once."""
    from dllm_plugins.request import Request

    shared = loaded_model()
    yield from shared.stream(Request(shared.model.encode_chat(chat), config))


async def _aevents(chat: list[dict[str, str]], config: "SamplingConfig") -> AsyncGenerator[Event, None]:
    """Like :func:`events`, with loading, tokenising and passes in threads."""
    from dllm_plugins.request import Request

    shared = await asyncio.to_thread(loaded_model)
    tokens = await asyncio.to_thread(shared.model.encode_chat, chat)
    async with aclosing(shared.astream(Request(tokens, config))) as source:
        async for event in source:
            yield event


def _report(response: Any, finish: Finish) -> None:
    """Usage and the engine's statistics, for llm's log."""
    usage = finish.usage
    response.set_usage(
        input=usage.prompt_tokens, output=usage.useful_tokens, details={"cached_tokens": usage.cached_tokens}
    )
    response.response_json = usage.as_dict() | {"finish_reason": finish.reason}


class DLLM(llm.Model):
    """The default model of dllm-plugins."""

    model_id = "dllm"
    can_stream = True
    Options = Options  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        """Yield committed text; drafts are shown by `llm dllm watch` only."""
        with clean_errors():
            for event in events(chat_of(prompt), to_config(prompt.options)):
                if isinstance(event, Commit) and stream and event.text:
                    yield event.text
                elif isinstance(event, Finish):
                    _report(response, event)
                    if not stream:
                        yield event.text


class AsyncDLLM(llm.AsyncModel):
    """The same model for asyncio: every pass runs in a thread, the event loop goes on."""

    model_id = "dllm"
    can_stream = True
    Options = Options  # type: ignore[assignment]  # llm declares a class where subclasses put their own

    async def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.AsyncResponse,
        conversation: llm.AsyncConversation | None,
    ) -> AsyncGenerator[str, None]:
        """See :meth:`DLLM.execute`."""
        with clean_errors():
            async with aclosing(_aevents(chat_of(prompt), to_config(prompt.options))) as source:
                async for event in source:
                    if isinstance(event, Commit) and stream and event.text:
                        yield event.text
                    elif isinstance(event, Finish):
                        _report(response, event)
                        if not stream:
                            yield event.text
