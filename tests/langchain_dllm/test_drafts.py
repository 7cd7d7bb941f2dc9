"""Drafts are custom events; only committed text comes as chunks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.prompts import ChatPromptTemplate

from dllm_plugins import Finish
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]
Engine = Callable[..., Finish]


class Listener(BaseCallbackHandler):
    """Collects drafts, tokens and runs."""

    def __init__(self) -> None:
        self.drafts: list[dict[str, Any]] = []
        self.draft_runs: set[UUID] = set()
        self.model_runs: set[UUID] = set()
        self.tags: list[str] = []
        self.tokens: list[str] = []

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self.model_runs.add(run_id)

    def on_llm_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> None:
        self.model_runs.add(run_id)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_custom_event(
        self, name: str, data: Any, *, run_id: UUID, tags: list[str] | None = None, **kwargs: Any
    ) -> None:
        assert name == "dllm_draft"
        self.drafts.append(data)
        self.draft_runs.add(run_id)
        self.tags = tags or []


def check(listener: Listener, text: str) -> None:
    """Drafts came, from the model's own run, and tokens were told once."""
    assert listener.drafts
    assert set(listener.drafts[0]) == {"step", "committed", "text", "reasoning", "tokens", "guesses", "confidences"}
    said = [draft["committed"] for draft in listener.drafts]
    assert all(text.startswith(now) and now.startswith(before) for before, now in pairwise(["", *said]))
    assert all(len(draft["confidences"]) == len(draft["guesses"]) for draft in listener.drafts)
    assert any(sure is not None for draft in listener.drafts for sure in draft["confidences"])
    steps = [draft["step"] for draft in listener.drafts]
    assert steps == sorted(set(steps))
    assert listener.draft_runs == listener.model_runs
    assert "".join(listener.tokens) == text


def test_streaming_at_top_level(chat: Chat, engine: Engine) -> None:
    """Whether the handler belongs to the call or to the model."""
    text = engine("why?").text
    for own in (True, False):
        listener = Listener()
        model = chat(callbacks=[listener] if own else None)
        chunks = model.stream("why?", config={"tags": ["mine"], **({} if own else {"callbacks": [listener]})})
        assert "".join(str(chunk.content) for chunk in chunks) == text
        check(listener, text)
        assert listener.tags == ["mine"]


def test_streaming_in_a_chain(chat: Chat, engine: Engine) -> None:
    """Each model run has its own drafts, also when streams alternate in one thread."""
    # A fixed layout: one that is chosen depends on company, and so do its drafts.
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | chat(draft_length=2)
    listeners = [Listener(), Listener()]
    streams = [chain.stream({"question": "why?"}, config={"callbacks": [listener]}) for listener in listeners]
    for _ in zip(*streams, strict=True):
        pass
    for listener in listeners:
        check(listener, engine("why?").text)
    for one, other in zip(listeners[0].drafts, listeners[1].drafts, strict=True):
        # Drafts are scored where they are made, among rows of others.
        assert one.pop("confidences") == pytest.approx(other.pop("confidences"), abs=1e-5)
        assert one == other
    assert not listeners[0].draft_runs & listeners[1].draft_runs


async def test_streaming_events_of_a_chain(chat: Chat, text: Callable[..., DLLM], engine: Engine) -> None:
    """`astream_events` shows drafts beside chunks, for both classes."""
    for model in (chat(), text()):
        chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | model
        events = [event async for event in chain.astream_events({"question": "why?"}, version="v2")]
        drafts = [event for event in events if event["event"] == "on_custom_event"]
        starts = [event for event in events if event["event"] in ("on_chat_model_start", "on_llm_start")]
        assert drafts
        assert {event["name"] for event in drafts} == {"dllm_draft"}
        assert {event["run_id"] for event in drafts} == {starts[0]["run_id"]}


async def test_streaming_inside_invoke(chat: Chat, text: Callable[..., DLLM], engine: Engine) -> None:
    """Drafts with `streaming=True` or `stream=True` only; tokens unless `streaming=False` was said."""
    answer = engine("why?").text
    listener, other = Listener(), Listener()
    assert chat(streaming=True).invoke("why?", config={"callbacks": [listener]}).content == answer
    assert (await chat().ainvoke("why?", config={"callbacks": [other]}, stream=True)).content == answer
    check(listener, answer)
    check(other, answer)
    for model in (text(streaming=True), text()):
        for call in (model.invoke, model.ainvoke):
            told = Listener()
            found = call("why?", config={"callbacks": [told]})
            assert (found if isinstance(found, str) else await found) == answer
            assert bool(told.drafts) == model.streaming
            assert "".join(told.tokens) == answer
    silent, deaf = Listener(), Listener()
    assert chat().invoke("why?", config={"callbacks": [silent]}).content == answer
    assert (await chat().ainvoke("why?", config={"callbacks": [silent]})).content == answer
    assert "".join(silent.tokens) == answer + answer
    assert not silent.drafts
    chat(streaming=False).invoke("why?", config={"callbacks": [deaf]})
    text(streaming=False).invoke("why?", config={"callbacks": [deaf]})
    chat(disable_streaming=True).invoke("why?", config={"callbacks": [deaf]})
    assert not deaf.tokens


async def test_protocol_events(chat: Chat, engine: Engine) -> None:
    """`stream_events` version 3 tells about drafts too."""
    listener = Listener()
    stream = chat().stream_events("why?", config={"callbacks": [listener]}, version="v3")
    assert stream.output.text == engine("why?").text
    assert listener.drafts
    assert listener.draft_runs == listener.model_runs


def test_who_ignores_custom_events_is_not_told(chat: Chat) -> None:
    """A handler says so with `ignore_custom_event`."""

    class Deaf(Listener):
        @property
        def ignore_custom_event(self) -> bool:
            return True

    listener = Deaf()
    list(chat().stream("why?", config={"callbacks": [listener]}))
    assert not listener.drafts
    assert listener.tokens
