"""ChatDLLM: the engine as a LangChain chat model."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import closing
from typing import Any
from typing import ClassVar
from typing import Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models import ModelProfile
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.outputs import ChatResult
from langchain_core.runnables import Runnable
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict
from pydantic import Field

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.messages import shown
from dllm_plugins.request import Request
from dllm_plugins.warm.opening import Answering
from langchain_dllm import drafts
from langchain_dllm.base import EngineModel
from langchain_dllm.call import CALL
from langchain_dllm.call import LANGCHAIN
from langchain_dllm.call import Call
from langchain_dllm.calling import opening_of
from langchain_dllm.drafting import DraftingChatModel
from langchain_dllm.gaps import requests_for
from langchain_dllm.messages import chat_of
from langchain_dllm.messages import totals_of
from langchain_dllm.profile import profile_of
from langchain_dllm.profile import with_context
from langchain_dllm.running import afinish
from langchain_dllm.running import arun
from langchain_dllm.running import run
from langchain_dllm.running import together
from langchain_dllm.schemas import constraint_in
from langchain_dllm.structured import structured
from langchain_dllm.together import in_threads
from langchain_dllm.toolkit import ARGUMENTS
from langchain_dllm.toolkit import Bindable
from langchain_dllm.toolkit import function_of
from langchain_dllm.toolkit import toolkit_of


class ChatDLLM(EngineModel, DraftingChatModel):
    """A diffusion language model in a chain; options: see :class:`EngineModel`.

    With `suffix` the answer ends with that text, and is what fills the gap before it.
    Drafts are sent as custom events named `dllm_draft`; chunks hold committed text only.
    """

    # Once more, as BaseChatModel comes later among the bases and ignores what it does not know.
    model_config = ConfigDict(extra="forbid")

    suffix: str | None = Field(default=None, description="text that the answer ends with; it fills the gap before")

    ls_type: ClassVar[Literal["chat", "llm"]] = "chat"
    call_options: ClassVar[tuple[str, ...]] = (*CALL, "suffix")

    def _resolve_model_profile(self) -> ModelProfile | None:
        """What LangChain calls for `profile`, unless one is given."""
        return profile_of(self.model_name, self.base)

    def _learn(self, name: str) -> None:
        """Only the loaded model knows for sure how much it holds, and whether it thinks."""
        profile, model = self.profile or {}, self._loaded[name].model
        if name != self.model_name or profile.get("name") != name:
            return
        if "max_input_tokens" not in profile:
            self.profile = with_context(profile, model.context)
        if model.thinks:
            self.profile = {**(self.profile or {}), "reasoning_output": True}

    def bind_tools(
        self,
        tools: Sequence[Bindable],
        *,
        tool_choice: str | Mapping[str, Any] | bool | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The same model, which may call these tools; see docs/tools.md.

        :param tools: functions, LangChain tools, pydantic classes, or JSON schemas.
        :param tool_choice: "auto" (as the model likes, the default), "any" or True (a call, whichever), "none", or a
            tool's name, which is then called.
        :param parallel_tool_calls: whether an answer may hold several calls. If not given, it may where the model
            chooses to call, and holds one where it must.
        :param strict: as LangChain writes schemas with it; calls keep to theirs in any case.
        :raises OptionError: for what is no tool, and a choice that there is not.
        """
        functions = [function_of(tool, strict) for tool in tools]
        bound: dict[str, Any] = {"tools": functions}
        if tool_choice is not None:
            bound["tool_choice"] = tool_choice
        if parallel_tool_calls is not None:
            bound["parallel_tool_calls"] = parallel_tool_calls
        with calling(LANGCHAIN):
            toolkit_of(bound)
        return self.bind(**bound, **kwargs)

    def _events(self, messages: list[BaseMessage], call: Call) -> Generator[tuple[int, Event], None, None]:
        """(answer, event) of as many answers as are wanted."""
        shared = self._shared(call.model_name)
        with closing(run(shared, _requests(shared, chat_of(messages), call), call)) as source:
            yield from source

    async def _arequests(self, messages: list[BaseMessage], call: Call) -> tuple[Answering, list[Request]]:
        chat = chat_of(messages)
        shared = await asyncio.to_thread(self._shared, call.model_name)
        return shared, await asyncio.to_thread(_requests, shared, chat, call)

    async def _aevents(self, messages: list[BaseMessage], call: Call) -> AsyncGenerator[Event, None]:
        shared, [request] = await self._arequests(messages, call)
        async with aclosing(arun(shared, request, call)) as source:
            async for event in source:
                yield event

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, done = self._call(stop, kwargs), dict[int, Finish]()
        told = run_manager if call.n == 1 and not self._streaming_disabled(**kwargs) else None
        graph, chunk_of = drafts.in_graph(run_manager), self._chunks(call)
        for place, event in self._events(messages, graph.asking(call)):
            graph.send(event)
            if isinstance(event, Finish):
                done[place] = event
            if told is not None and (chunk := chunk_of(event)) is not None:
                told.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result([done[place] for place in range(call.n)], call)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call = self._call(stop, kwargs)
        if call.n > 1 or run_manager is None or self._streaming_disabled(**kwargs):
            shared, requests = await self._arequests(messages, call)
            return self._result(await together([afinish(shared, request, call) for request in requests]), call)
        graph, chunk_of = drafts.in_graph(run_manager), self._chunks(call)
        async with aclosing(self._aevents(messages, graph.asking(call))) as source:
            async for event in source:
                graph.send(event)
                if (chunk := chunk_of(event)) is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
        return self._result([event], call)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Committed text only: a chunk is never taken back."""
        call, listeners = self._call(stop, kwargs).one(), drafts.run_of(run_manager)
        yield from self._opening(call)
        chunk_of = self._chunks(call)
        for _, event in self._events(messages, listeners.asking(call)):
            listeners.send(event)
            chunk = chunk_of(event)
            if chunk is not None:
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
        call, listeners = self._call(stop, kwargs).one(), drafts.run_of(run_manager)
        for opening in self._opening(call):
            yield opening
        chunk_of = self._chunks(call)
        async with aclosing(self._aevents(messages, listeners.asking(call))) as source:
            async for event in source:
                await listeners.asend(event)
                chunk = chunk_of(event)
                if chunk is not None:
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _opening(self, call: Call) -> list[ChatGenerationChunk]:
        """What a streamed answer begins with before anything is decoded."""
        return [] if call.as_tool is None else [ChatGenerationChunk(message=opening_of(call.as_tool))]

    def _chunks(self, call: Call) -> Callable[[Event], ChatGenerationChunk | None]:
        """What turns the events of one answer, in order, into the chunks of a stream."""
        told: list[Callable[[Event], AIMessageChunk | None]] = []

        def chunk_of(event: Event) -> ChatGenerationChunk | None:
            # The model is loaded by now.
            if not told:
                told.append(self._teller(call).stream())
            message = told[0](event)
            return None if message is None else ChatGenerationChunk(message=message)

        return chunk_of

    def _result(self, events: Sequence[Event], call: Call) -> ChatResult:
        """The answers, and the sum of their token counts."""
        messages = [self._teller(call).answer(event) for event in events if isinstance(event, Finish)]
        assert len(messages) == call.n, "a stream ends with Finish"
        totals = totals_of(message.usage_metadata or {} for message in messages)
        output = {"model_name": call.model_name, "token_usage": totals}
        return ChatResult(generations=[ChatGeneration(message=message) for message in messages], llm_output=output)

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None], /) -> dict[str, Any]:
        """The sum over several prompts; answers from a cache cost nothing."""
        known = [output for output in llm_outputs if output is not None]
        if not known:
            return {}
        return {**known[0], "token_usage": totals_of(output["token_usage"] for output in known)}

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

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers as objects of a class, or as dicts; see docs/structured-output.md for what a schema may say.

        :param schema: a pydantic class, a TypedDict class, a JSON schema or a function's description.
        :param method: "json_schema"; "function_calling", where the raw message holds a tool call; or "json_mode",
            which needs no schema and holds answers to the one it is given all the same.
        :param include_raw: give the message, the object and the error of parsing, if there is one.
        :param strict: answers are held to the schema in any case.
        :raises OptionError: for a schema that cannot be held, and for anything else that has no meaning.
        """
        with calling(LANGCHAIN):
            return structured(self, schema, method=method, include_raw=include_raw, strict=strict, others=kwargs)

    def _call(self, stop: list[str] | None, given: dict[str, Any]) -> Call:
        """As for every model; tools, `response_format` and `as_tool` are of calls alone."""
        own = (*ARGUMENTS, "response_format", "as_tool")
        more = {name: value for name, value in given.items() if name not in own}
        if given.get("response_format") is not None:
            if more.get("constraint") is not None:
                raise OptionError("constraint and response_format both say what the answer must be; give one of them")
            with calling(LANGCHAIN):
                more["constraint"] = constraint_in(given["response_format"])
        with calling(LANGCHAIN):
            kit = toolkit_of(given)
        return super()._call(stop, more).model_copy(update={"as_tool": given.get("as_tool"), "toolkit": kit})

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the prompt these messages make, chat template and tools included.

        :raises OptionError: for what is no tool.
        """
        toolkit = toolkit_of({"tools": list(tools or ())})
        told = () if toolkit is None else toolkit.tools
        return len(self._shared(self.model_name).model.encode_chat(chat_of(messages), told))


def _requests(shared: Answering, chat: list[dict[str, Any]], call: Call) -> list[Request]:
    """A request for each answer: its prompt tells of the tools, and its calls keep to their schemas.

    With a suffix there is a gap before that, which the answer fills.

    :raises OptionError: for a suffix beside tools.
    """
    kit, model = call.toolkit, shared.model
    filling = requests_for(shared, "", call, chat)
    if filling is not None and kit is not None:
        raise OptionError(f"suffix={shown(call.suffix)} has no meaning beside tools; leave one of the two out")
    if filling is not None:
        return filling
    with calling(LANGCHAIN):
        if kit is None:
            return call.requests(model.chat_request(chat, call.config, thinking=call.thinking))
        return call.requests(
            model.chat_request(chat, call.config, kit.tools, kit.choice, kit.parallel, thinking=call.thinking)
        )
