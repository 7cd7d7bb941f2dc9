"""Drafts as LangChain's custom events named `dllm_draft`, and in what LangGraph streams as `custom`."""

import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from dataclasses import replace
from typing import Any
from typing import cast
from uuid import UUID
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks import CallbackManager
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables import ensure_config

from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from langchain_dllm.call import Call

EVENT = "dllm_draft"


@dataclass(frozen=True, slots=True)
class DraftListeners:
    """Who is told about the drafts of a run.

    :param graph: what writes into the stream of a graph, if the run is part of one.
    """

    handlers: list[BaseCallbackHandler]
    run_id: UUID
    tags: list[str]
    metadata: dict[str, Any]
    graph: Callable[[Any], None] | None = None

    def asking(self, call: Call) -> Call:
        """The call as the engine is asked: who listens to drafts is told how sure they are."""
        if call.config.logprobs is not None or not (self.handlers or self.graph):
            return call
        return call.model_copy(update={"config": call.config.with_options(logprobs=0)})

    def send(self, event: Event) -> None:
        """Tell the handlers and the graph if this is a draft."""
        if isinstance(event, Draft):
            self._write(event)
            if self.handlers:
                manager = CallbackManager(handlers=self.handlers, tags=self.tags, metadata=self.metadata)
                manager.on_custom_event(EVENT, _data(event), run_id=self.run_id)

    async def asend(self, event: Event) -> None:
        """Like :meth:`send`, for handlers that may be coroutines."""
        if isinstance(event, Draft):
            self._write(event)
            if self.handlers:
                manager = AsyncCallbackManager(handlers=self.handlers, tags=self.tags, metadata=self.metadata)
                await manager.on_custom_event(EVENT, _data(event), run_id=self.run_id)

    def _write(self, draft: Draft) -> None:
        if self.graph is not None:
            self.graph({"name": EVENT, "run_id": str(self.run_id), "data": _data(draft)})


_current: ContextVar[DraftListeners | None] = ContextVar("_current", default=None)
_nobody = DraftListeners([], uuid4(), [], {})


def _data(draft: Draft) -> dict[str, Any]:
    return {
        "step": draft.step,
        "committed": draft.committed,
        "text": draft.text,
        "reasoning": draft.reasoning,
        "tokens": list(draft.tokens),
        "guesses": list(draft.guesses),
        "confidences": list(draft.confidences),
    }


def _graph() -> Callable[[Any], None] | None:
    """What writes into the stream of the LangGraph graph that runs here, if one does.

    LangGraph hears no custom events of LangChain's; it is never imported for the sake of it.
    """
    langgraph: Any = sys.modules.get("langgraph.config")
    try:
        return None if langgraph is None else cast("Callable[[Any], None]", langgraph.get_stream_writer())
    except (KeyError, RuntimeError):
        # Not inside a graph.
        return None


def in_graph(manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> DraftListeners:
    """Of a run that is not streamed: its handlers hear nothing, a graph does."""
    return replace(_nobody, run_id=_nobody.run_id if manager is None else manager.run_id, graph=_graph())


def _listening(handlers: list[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    return [handler for handler in handlers if not handler.ignore_custom_event]


def run_of(manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> DraftListeners:
    """The run of this manager; without one, the run that :func:`current` told of."""
    if manager is None:
        return _current.get() or _nobody
    return DraftListeners(_listening(manager.handlers), manager.run_id, manager.tags, manager.metadata, _graph())


def planned(model: BaseLanguageModel[Any], config: RunnableConfig | None) -> tuple[DraftListeners, RunnableConfig]:
    """The run that `model.stream(..., config)` is about to start, and the config that makes it start so."""
    known = ensure_config(config)
    run_id = known.get("run_id") or uuid4()
    manager = CallbackManager.configure(
        known.get("callbacks"),
        model.callbacks,
        model.verbose,
        known.get("tags"),
        model.tags,
        known.get("metadata"),
        model.metadata,
    )
    run = DraftListeners(_listening(manager.handlers), run_id, manager.tags, manager.metadata, _graph())
    return run, {**known, "run_id": run_id}


@contextmanager
def current(run: DraftListeners) -> Iterator[None]:
    """Let a `_stream` that begins meanwhile know its run, which LangChain does not tell it."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)
