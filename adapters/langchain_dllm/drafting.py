"""A chat model whose `_stream` knows its run, so that it can send drafts as custom events.

BaseChatModel tells `_generate` about the run, but not `_stream`.
"""

from collections.abc import AsyncGenerator
from collections.abc import AsyncIterator
from collections.abc import Generator
from collections.abc import Iterator
from contextlib import aclosing
from contextlib import closing
from typing import Any
from typing import cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig

from langchain_dllm import drafts


class DraftingChatModel(BaseChatModel):
    """Every way to `_stream` leaves its run where :func:`drafts.run_of` finds it."""

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Committed text as it comes; closing the iterator frees the row at once."""
        listeners, config = drafts.planned(self, config)
        source = cast(
            "Generator[AIMessageChunk, None, None]", super().stream(input, config=config, stop=stop, **kwargs)
        )
        with closing(source):
            with drafts.current(listeners):
                first = next(source)
            yield first
            yield from source

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """See :meth:`stream`."""
        listeners, config = drafts.planned(self, config)
        source = cast(
            "AsyncGenerator[AIMessageChunk, None]", super().astream(input, config=config, stop=stop, **kwargs)
        )
        async with aclosing(source):
            with drafts.current(listeners):
                first = await anext(source)
            yield first
            async for chunk in source:
                yield chunk

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with drafts.current(drafts.run_of(run_manager)):
            return super()._generate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with drafts.current(drafts.run_of(run_manager)):
            return await super()._agenerate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)
