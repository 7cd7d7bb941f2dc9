"""The prefix cache is kept between turns."""

from collections.abc import Callable
from typing import Any

from dllm_plugins import Finish
from langchain_dllm import ChatDLLM


async def test_the_second_turn_prefills_only_what_is_new(
    chat: Callable[..., ChatDLLM], engine: Callable[..., Finish]
) -> None:
    """Same answer, same passes, and fewer rows by exactly what came from the cache."""
    for ask in ("invoke", "ainvoke"):
        model = chat()
        first: Any = model.invoke("why? " + ask)
        history: list[Any] = [("user", "why? " + ask), ("assistant", first.content), ("user", "and?")]
        answer: Any = await model.ainvoke(history) if ask == "ainvoke" else model.invoke(history)
        alone = engine(history)
        statistics = answer.response_metadata["statistics"]
        cached = answer.usage_metadata["input_token_details"]["cache_read"]
        assert answer.content == alone.text
        assert cached == statistics["cached_tokens"] >= first.usage_metadata["input_tokens"]
        assert statistics["passes"] == alone.usage.passes
        assert statistics["rows"] == alone.usage.rows - cached


async def test_turns_of_a_stream(chat: Callable[..., ChatDLLM]) -> None:
    """The last chunk tells how much was cached."""
    model = chat()
    first = model.invoke("where to?")
    history: list[Any] = [("user", "where to?"), first, ("user", "when?")]
    *_, last = model.stream(history)
    usage: Any = last.usage_metadata
    assert usage["input_token_details"]["cache_read"] >= first.usage_metadata["input_tokens"]  # type: ignore[index]
