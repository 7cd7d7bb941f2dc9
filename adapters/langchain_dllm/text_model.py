"""DLLM: the engine as a LangChain text model."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import AsyncIterator
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import closing
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import NoReturn

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.llms import BaseLLM
from langchain_core.outputs import GenerationChunk
from langchain_core.outputs import LLMResult
from langchain_core.rate_limiters import BaseRateLimiter
from pydantic import ConfigDict
from pydantic import Field

from dllm_plugins.errors import OptionError
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.warm.opening import Answering
from langchain_dllm import drafts
from langchain_dllm.base import EngineModel
from langchain_dllm.call import CALL
from langchain_dllm.call import Call
from langchain_dllm.call import changes_of
from langchain_dllm.gaps import OPTIONS
from langchain_dllm.generations import chunk_of
from langchain_dllm.generations import generation_of
from langchain_dllm.generations import joined
from langchain_dllm.generations import requests_of
from langchain_dllm.generations import result_of
from langchain_dllm.running import afinish
from langchain_dllm.running import arun
from langchain_dllm.running import run
from langchain_dllm.running import together

#: Arguments of `generate` that are LangChain's own.
_OF_LANGCHAIN = ("tags", "metadata", "run_name", "run_id")


class DLLM(EngineModel, BaseLLM):
    """A diffusion language model that takes and gives text; options: see :class:`EngineModel`.

    The prompt is put to the model as a user's message. With `raw=True` the model goes on
    from the very text. With `suffix` the prompt is the very text before a gap, and the answer is what fills it;
    with `gap` it is a text in which that marks gaps, and the answer all of it, filled. `max_tokens` then is the
    longest a gap may get, 64 if nobody says it. With `spans` it is a text of which these characters are written anew.
    """

    # Once more, as BaseLLM comes later among the bases and ignores what it does not know.
    model_config = ConfigDict(extra="forbid")

    raw: bool = Field(default=False, description="send the text without a chat template")
    suffix: str | None = Field(default=None, description="text behind the gap that the answer fills")
    gap: str | None = Field(default=None, min_length=1, description="what marks gaps to fill in a prompt")
    spans: tuple[tuple[int, int], ...] | None = Field(
        default=None, description="characters (begin, end) of a prompt that are written anew"
    )
    rate_limiter: BaseRateLimiter | None = Field(default=None, exclude=True)

    ls_type: ClassVar[Literal["chat", "llm"]] = "llm"
    call_options: ClassVar[tuple[str, ...]] = (*CALL, "raw", *OPTIONS)

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """All prompts in the same passes."""
        call = self._call(stop, kwargs)
        if self.streaming:
            return result_of([[joined([*self._stream(_only(prompts), stop, run_manager, **kwargs)])]], call)
        self._acquire(len(prompts))
        shared = self._shared(call.model_name)
        requests = [request for prompt in prompts for request in requests_of(shared, prompt, call)]
        done, told = dict[int, Finish](), run_manager if self._tells(requests) else None
        with closing(run(shared, requests, call)) as source:
            for place, event in source:
                if isinstance(event, Finish):
                    done[place] = event
                if told is not None and (chunk := chunk_of(event, self._teller(call))) is not None:
                    told.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result([done[place] for place in range(len(requests))], call)

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """All prompts at once; if one fails, or the task is cancelled, all rows are freed."""
        call = self._call(stop, kwargs)
        if self.streaming:
            source = self._astream(_only(prompts), stop, run_manager, **kwargs)
            return result_of([[joined([chunk async for chunk in source])]], call)
        if run_manager is not None and self._tells(prompts) and call.n == 1:
            async with aclosing(self._aevents(prompts[0], call)) as events:
                async for event in events:
                    if (chunk := chunk_of(event, self._teller(call))) is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            return self._result([event], call)
        answers = await together([self._afinishes(prompt, call) for prompt in prompts])
        return self._result([finish for own in answers for finish in own], call)

    def _tells(self, answers: Sequence[Any]) -> bool:
        """Whether callbacks are told of tokens as they come: of a single answer, unless `streaming=False` was said."""
        return len(answers) == 1 and not ("streaming" in self.model_fields_set and not self.streaming)

    def _result(self, events: Sequence[Event], call: Call) -> LLMResult:
        """:param events: those that end answers, `n` for each prompt."""
        found = [generation_of(event, self._teller(call)) for event in events if isinstance(event, Finish)]
        return result_of([found[first : first + call.n] for first in range(0, len(found), call.n)], call)

    async def _afinishes(self, prompt: str, call: Call) -> list[Finish]:
        shared, requests = await self._arequests(prompt, call)
        return await together([afinish(shared, request, call) for request in requests])

    async def _arequests(self, prompt: str, call: Call) -> tuple[Answering, list[Request]]:
        if self.rate_limiter is not None:
            await self.rate_limiter.aacquire(blocking=True)
        shared = await asyncio.to_thread(self._shared, call.model_name)
        return shared, await asyncio.to_thread(requests_of, shared, prompt, call)

    async def _aevents(self, prompt: str, call: Call) -> AsyncGenerator[Event, None]:
        shared, [request] = await self._arequests(prompt, call)
        async with aclosing(arun(shared, request, call)) as source:
            async for event in source:
                yield event

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        """Committed text only: a chunk is never taken back."""
        call, listeners = self._call(stop, kwargs).one(), drafts.run_of(run_manager)
        self._acquire(1)
        shared = self._shared(call.model_name)
        with closing(run(shared, requests_of(shared, prompt, listeners.asking(call)), call)) as source:
            for _, event in source:
                listeners.send(event)
                chunk = chunk_of(event, self._teller(call))
                if chunk is not None:
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        """See :meth:`_stream`."""
        call, listeners = self._call(stop, kwargs).one(), drafts.run_of(run_manager)
        async with aclosing(self._aevents(prompt, listeners.asking(call))) as source:
            async for event in source:
                await listeners.asend(event)
                chunk = chunk_of(event, self._teller(call))
                if chunk is not None:
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def bind_tools(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Only chat models call tools.

        :raises OptionError: always.
        """
        raise OptionError(f"{type(self).__name__} takes and gives text and calls no tools; use ChatDLLM")

    def generate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """Answers to all prompts; see :class:`BaseLLM`."""
        model, rest = self._changed(kwargs)
        return super(DLLM, model).generate(prompts, stop, callbacks, **rest)

    async def agenerate(
        self, prompts: list[str], stop: list[str] | None = None, callbacks: Any = None, **kwargs: Any
    ) -> LLMResult:
        """See :meth:`generate`."""
        model, rest = self._changed(kwargs)
        return await super(DLLM, model).agenerate(prompts, stop, callbacks, **rest)

    def _changed(self, kwargs: dict[str, Any]) -> tuple["DLLM", dict[str, Any]]:
        """The model with a call's options, and LangChain's own arguments.

        BaseLLM's cache key covers fields, but not the arguments of a call.
        """
        rest = {name: kwargs[name] for name in _OF_LANGCHAIN if name in kwargs}
        given = {name: value for name, value in kwargs.items() if name not in rest}
        self._call(None, given)
        return self.model_copy(update=changes_of(given, self.call_options)), rest

    def _acquire(self, times: int) -> None:
        if self.rate_limiter is not None:
            for _ in range(times):
                self.rate_limiter.acquire(blocking=True)


def _only(prompts: Sequence[str]) -> str:
    if len(prompts) != 1:
        raise OptionError(f"streaming=True streams one prompt, not {len(prompts)}; leave streaming out for a batch")
    return prompts[0]
