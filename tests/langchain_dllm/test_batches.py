"""Many at once: shared passes, early leavers, threads."""

import asyncio
import itertools
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from torch import Tensor

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]
Engine = Callable[..., Finish]


@pytest.fixture(scope="module")
def expected(engine: Engine, questions: list[Any]) -> list[str]:
    """Each question's answer, decoded alone."""
    return [engine(question).text for question in questions]


def active(model: ChatDLLM) -> tuple[int, ...]:
    """Rows the engine is decoding."""
    shared: Any = model._shared("dllm")
    found: tuple[int, ...] = shared._engine.active
    return found


async def idle(model: ChatDLLM) -> None:
    """Wait until nothing is decoded any more."""
    async with asyncio.timeout(10):
        while active(model):
            await asyncio.sleep(0.001)


def test_rows_of_a_batch_share_passes(
    chat: Chat, engine: Engine, questions: list[Any], expected: list[str], rows: list[int]
) -> None:
    """All eight in the first, and no more passes than the longest answer needs alone."""
    longest = max(engine(question).usage.total_passes for question in questions)
    model = chat()
    rows.clear()
    assert [answer.content for answer in model.batch(questions)] == expected
    assert rows[0] == 8
    assert len(rows) == longest
    rows.clear()
    assert sorted(place for place, _ in model.batch_as_completed(questions)) == list(range(8))
    assert rows[0] == 8


def test_a_chain_batches_its_model(chat: Chat, questions: list[Any], expected: list[str], rows: list[int]) -> None:
    """Prompt, model and parser."""
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | chat() | StrOutputParser()
    rows.clear()
    assert chain.batch([{"question": question} for question in questions]) == expected
    assert rows[0] == 8


async def test_tasks_share_passes(chat: Chat, questions: list[Any], expected: list[str], rows: list[int]) -> None:
    """abatch and gather need no thread for each task."""
    model = chat()
    assert [answer.content for answer in await model.abatch(questions)] == expected
    assert max(rows) == 8
    rows.clear()
    assert [a.content for a in await asyncio.gather(*(model.ainvoke(q) for q in questions))] == expected
    assert max(rows) == 8


async def test_the_event_loop_goes_on(chat: Chat) -> None:
    """While a pass runs, others are served."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    answer = await chat().ainvoke("why?")
    ticking.cancel()
    assert ticks > answer.response_metadata["statistics"]["total_passes"]


def test_max_concurrency_is_honoured(chat: Chat, questions: list[Any], expected: list[str], rows: list[int]) -> None:
    """At most so many rows in a pass."""
    answers = chat().batch(questions, config={"max_concurrency": 2})
    assert [answer.content for answer in answers] == expected
    assert max(rows) == 2


def test_one_bad_prompt_of_a_batch(chat: Chat, expected: list[str]) -> None:
    """Raises, or comes back as an exception among the answers."""
    with pytest.raises(DllmError, match="empty"):
        chat().batch(["why?", " "])
    good, bad = chat().batch(["why?", " "], return_exceptions=True)
    assert good.content == expected[0]
    assert isinstance(bad, DllmError)
    assert chat().batch([]) == []


def test_calls_that_do_not_reach_the_engine(chat: Chat, questions: list[Any], rows: list[int]) -> None:
    """Nobody waits for an answer from the cache, nor for a prompt that is refused."""
    cache = InMemoryCache()
    model = chat(cache=cache)
    plain = [model.invoke(question).content for question in questions[:2]]
    rows.clear()
    answers = model.batch([*questions[:3], "too long " * 100, " "], return_exceptions=True)
    assert [answer.content for answer in answers[:2]] == plain
    assert isinstance(answers[2], AIMessage)
    assert [isinstance(answer, DllmError) for answer in answers] == [False, False, False, True, True]
    assert max(rows) == 1


def test_calls_of_a_batch_within_a_batch(chat: Chat, engine: Engine) -> None:
    """A callback that asks the same model, or another one, in the middle of a call."""
    other = chat(dtype="bfloat16")

    class Asks(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            self.said = [other.invoke("how?", max_tokens=2), *model.batch(["how?"] * 2, max_tokens=2)]

    model = chat()
    asks = Asks()
    answers = model.batch(["why?"] * 3, config={"callbacks": [asks]})
    assert [answer.content for answer in answers] == [engine("why?").text] * 3
    assert asks.said[1].content == asks.said[2].content


def test_a_failed_pass_reaches_every_call(chat: Chat, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And `max_retries` starts each again."""
    failures = [MemoryError("too many rows")]
    forward = TriModeDenoiser.forward

    def failing(self: TriModeDenoiser, segments: Sequence[Segment]) -> list[Tensor]:
        if failures:
            raise failures.pop()
        return forward(self, segments)

    model = chat()
    model.get_num_tokens("loads")
    monkeypatch.setattr(TriModeDenoiser, "forward", failing)
    answers = model.batch(["why?"] * 3, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["PassError"] * 3
    failures.append(MemoryError("too many rows"))
    assert [a.content for a in model.batch(["why?"] * 3, max_retries=1)] == [expected[0]] * 3


def test_a_batch_closed_half_way_frees_its_rows(chat: Chat, questions: list[Any], rows: list[int]) -> None:
    """Rows under way end with their next pass."""
    model = chat(max_tokens=200)
    batch = model.batch_as_completed(["why?", *questions], stop=["e"])
    next(batch)
    batch.close()  # type: ignore[attr-defined]
    assert active(model) == ()


def test_interrupting_a_chain_of_eight(chat: Chat, questions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives in the thread that called batch: no row is left, and the model goes on."""
    model = chat(max_tokens=400)
    chain = ChatPromptTemplate.from_messages([("human", "{question}")]) | model | StrOutputParser()
    waits = itertools.count()

    def interrupted(futures: Any) -> Any:
        while len(active(model)) < 8:
            next(waits)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("langchain_dllm.together.as_completed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            chain.batch([{"question": question} for question in questions])
    assert active(model) == ()
    assert model.invoke("why?", max_tokens=3).content


async def test_cancelling_a_chain_of_eight_half_way(
    chat: Chat, questions: list[Any], expected: list[str], rows: list[int]
) -> None:
    """All of its rows are freed; another request on the same model does not notice."""
    model = chat()
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    chain = prompt | model.bind(max_tokens=400) | StrOutputParser()
    leaving = asyncio.create_task(chain.abatch([{"question": question} for question in questions]))
    staying = asyncio.create_task(model.ainvoke(questions[0]))
    while not rows or max(rows) < 8:
        await asyncio.sleep(0.001)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await staying).content == expected[0]
    await idle(model)


async def test_closing_a_stream_frees_its_row(chat: Chat) -> None:
    """Closed, broken off, or its task cancelled."""
    model = chat(max_tokens=400)
    stream = model.stream("why?")
    next(stream)
    assert len(active(model)) == 1
    stream.close()  # type: ignore[attr-defined]
    assert active(model) == ()
    for _ in model.stream("why?"):
        break
    assert active(model) == ()
    async for _ in model.astream("why?"):
        break
    await idle(model)


def test_ten_threads_on_one_model(chat: Chat, engine: Engine) -> None:
    """Each gets the answer it would get alone, sampled ones too."""
    model = chat()
    options = [{"temperature": 0.8 * (number % 2), "seed": number} for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda given: model.invoke(f"why {given['seed']}?", **given), options))
    alone = [engine(f"why {given['seed']}?", **given).text for given in options]
    assert [answer.content for answer in answers] == alone
