"""ChatDLLM: the engine as a LangChain chat model."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import AsyncIterator
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import closing
from typing import Any
from typing import ClassVar
from typing import Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict

from dllm_plugins.errors import OptionError
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from langchain_dllm import drafts
from langchain_dllm.base import EngineModel
from langchain_dllm.call import Call
from langchain_dllm.drafting import DraftingChatModel
from langchain_dllm.messages import answer_of
from langchain_dllm.messages import chat_of
from langchain_dllm.messages import chunk_of
from langchain_dllm.running import arun
from langchain_dllm.running import run
from langchain_dllm.together import in_threads


class ChatDLLM(EngineModel, DraftingChatModel):
    """A diffusion language model in a chain; options: see :class:`EngineModel`.

    Drafts are sent as custom events named `dllm_draft`; chunks hold committed text only.
    """

    # Once more, as BaseChatModel comes later among the bases and ignores what it does not know.
    model_config = ConfigDict(extra="forbid")

    ls_type: ClassVar[Literal["chat", "llm"]] = "chat"

    def _events(self, messages: list[BaseMessage], call: Call) -> Generator[Event, None, None]:
        chat, shared = chat_of(messages), self._shared(call.model_name)
        request = Request(shared.model.encode_chat(chat), call.config)
        with closing(run(shared, [request], call)) as source:
            for _, event in source:
                yield event

    async def _aevents(self, messages: list[BaseMessage], call: Call) -> AsyncGenerator[Event, None]:
        chat = chat_of(messages)
        shared = await asyncio.to_thread(self._shared, call.model_name)
        tokens = await asyncio.to_thread(shared.model.encode_chat, chat)
        async with aclosing(arun(shared, Request(tokens, call.config), call)) as source:
            async for event in source:
                yield event

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(stop, kwargs)
        *_, finish = self._events(messages, call)
        return _result(finish, call)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(stop, kwargs)
        async with aclosing(self._aevents(messages, call)) as source:
            finish = [event async for event in source][-1]
        return _result(finish, call)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Committed text only: a chunk is never taken back."""
        call, listeners = self._call(stop, kwargs), drafts.run_of(run_manager)
        for event in self._events(messages, call):
            listeners.send(event)
            message = chunk_of(event, call.model_name)
            if message is not None:
                chunk = ChatGenerationChunk(message=message)
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """See :meth:`_stream`."""
        call, listeners = self._call(stop, kwargs), drafts.run_of(run_manager)
        async with aclosing(self._aevents(messages, call)) as source:
            async for event in source:
                await listeners.asend(event)
                message = chunk_of(event, call.model_name)
                if message is not None:
                    chunk = ChatGenerationChunk(message=message)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Answers to all inputs, decoded in the same passes; `max_concurrency` limits how many at once."""
        done = dict(self.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs))
        return [done[place] for place in range(len(inputs))]

    def batch_as_completed(
        self,
        inputs: Sequence[LanguageModelInput],
        config: RunnableConfig | Sequence[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Any]]:
        """(place, answer) as they come; closing the iterator frees the rows that are not done."""
        configs = get_config_list(config, len(inputs)) if inputs else [RunnableConfig()]

        def answer(place: int) -> AIMessage | Exception:
            try:
                return self.invoke(inputs[place], configs[place], **kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        # Behind a rate limiter nobody waits for the others, who may be a long time coming.
        meet = self.rate_limiter is None
        yield from in_threads(answer, len(inputs), configs[0].get("max_concurrency"), meet)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the prompt these messages make, chat template included.

        :raises OptionError: if there are tools.
        """
        if tools:
            raise OptionError(f"ChatDLLM does not call tools, but {len(tools)} are to be counted; leave them out")
        return len(self._shared(self.model_name).model.encode_chat(chat_of(messages)))


def _result(event: Event, call: Call) -> ChatResult:
    assert isinstance(event, Finish), "a stream ends with Finish"
    return ChatResult(generations=[ChatGeneration(message=answer_of(event, call.model_name))])
