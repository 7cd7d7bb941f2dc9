"""`DLLM` on the tiny model."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from langchain_dllm import DLLM

Text = Callable[..., DLLM]
Engine = Callable[..., Finish]


async def test_all_ways_give_the_engines_answer(text: Text, engine: Engine, questions: list[Any]) -> None:
    """invoke, stream, batch and their asynchronous twins."""
    expected = [engine(question).text for question in questions]
    model = text()
    assert model.invoke("why?") == expected[0]
    assert await model.ainvoke("why?") == expected[0]
    assert "".join(model.stream("why?")) == expected[0]
    assert "".join([chunk async for chunk in model.astream("why?")]) == expected[0]
    assert model.batch(questions) == expected
    assert await model.abatch(questions) == expected
    assert model.batch(questions, config={"max_concurrency": 3}) == expected


async def test_a_batch_is_one_of_the_engines(text: Text, engine: Engine, questions: list[Any], rows: list[int]) -> None:
    """As many passes as the longest answer, eight rows in the first."""
    longest = max(engine(question).usage.total_passes for question in questions)
    rows.clear()
    text().batch(questions)
    assert rows[0] == 8
    assert len(rows) == longest
    rows.clear()
    await text().abatch(questions)
    assert max(rows) == 8


def test_statistics(text: Text, engine: Engine) -> None:
    """generation_info of each answer, and the sum of the counts."""
    expected = engine("why?")
    result = text().generate(["why?", "why? or how?"])
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["finish_reason"] == expected.reason
    assert info["model_name"] == "dllm"
    assert info["usage"]["output_tokens"] == len(expected.tokens)
    assert info["statistics"]["passes"] == expected.usage.passes
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["output_tokens"] > info["usage"]["output_tokens"]


def test_raw_text(text: Text, tiny: Model) -> None:
    """Without a template the model goes on from the very text; as a field and in a call."""
    tokens = tiny.tokenizer.encode("once upon", add_special_tokens=False)
    expected = tiny.engine().generate([Request(tokens, SamplingConfig(max_new_tokens=20))])[0].text
    assert text(raw=True).invoke("once upon") == text().invoke("once upon", raw=True) == expected
    assert "".join(text().stream("once upon", raw=True)) == expected
    assert text().invoke("once upon") != expected
    assert text()._identifying_params["raw"] is False


def test_what_cannot_be_done_is_refused(text: Text) -> None:
    """Empty prompts, unknown fields, several prompts with streaming=True."""
    with pytest.raises(DllmError, match="empty"):
        text().invoke(" ")
    with pytest.raises(DllmError, match="empty"):
        text(raw=True).invoke("")
    with pytest.raises(ValueError, match="telepathy"):
        text(telepathy=1)
    with pytest.raises(DllmError, match="one prompt, not 2"):
        text(streaming=True).batch(["why?", "how?"])


async def test_leaving_frees_the_rows(text: Text, questions: list[Any]) -> None:
    """A closed stream, a cancelled batch."""
    model = text(max_tokens=400)
    shared: Any = model._shared("dllm")
    engine = shared._engine
    stream = model.stream("why?")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert engine.active == ()
    task = asyncio.create_task(model.abatch(questions))
    while len(engine.active) < 8:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        while engine.active:
            await asyncio.sleep(0.001)


def test_it_calls_no_tools(text: Callable[..., DLLM]) -> None:
    """The chat model does."""
    with pytest.raises(DllmError, match="DLLM takes and gives text and calls no tools; use ChatDLLM"):
        text().bind_tools([])
    with pytest.raises(DllmError, match="unknown option tools"):
        text().invoke("why?", tools=[])
