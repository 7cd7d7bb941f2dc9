"""Thinking in LangChain: blocks of their own, whole and streamed, and in what comes back."""

from collections.abc import Callable
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages import HumanMessage

from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM
from langchain_dllm.messages import chat_of

from ..text.thinking_templates import BEGUN
from ..text.thinking_templates import BRACKETS
from ..thoughtful import thoughtful

SCHEMA = {"title": "pair", "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


@pytest.fixture
def options(tiny_folder: Path, loading: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Options that load the tiny model with a template, and hold its answers to "yes"."""

    def make(template: str = BEGUN) -> dict[str, Any]:
        base = thoughtful(tiny_folder, tmp_path / "base", template)
        return {**loading, "base": str(base), "max_tokens": 30, "constraint": Regex("yes")}

    return make


def blocks(message: Any) -> list[tuple[str, str]]:
    """Kinds and texts of the content blocks."""
    return [(block["type"], block.get("text") or block.get("reasoning")) for block in message.content_blocks]


async def test_blocks_of_their_own(options: Callable[..., dict[str, Any]]) -> None:
    """`invoke`, `stream`, `astream`: the same blocks, and `content` is what is said."""
    model = ChatDLLM(**options())
    answer = model.invoke("why?")
    thought = str(answer.additional_kwargs["reasoning_content"])
    assert thought
    assert blocks(answer) == [("reasoning", thought), ("text", "yes")]
    assert answer.content == answer.text == "yes"
    assert (model.profile or {})["reasoning_output"] is True
    usage: Any = answer.usage_metadata
    assert usage["output_token_details"]["reasoning"] == usage["output_tokens"] - len("yes")
    chunks = list(model.stream("why?"))
    assert len([chunk for chunk in chunks if "reasoning_content" in chunk.additional_kwargs]) > 1
    for whole in (reduce(add, chunks), reduce(add, [chunk async for chunk in model.astream("why?")])):
        assert blocks(whole) == blocks(answer)
        assert dict(whole.usage_metadata or {})["output_token_details"] == usage["output_token_details"]
    assert blocks((await model.agenerate([[HumanMessage("why?")]])).generations[0][0].message) == blocks(answer)  # type: ignore[union-attr]


def test_standard_content(options: Callable[..., dict[str, Any]]) -> None:
    """`output_version="v1"` puts the blocks into `content`, streamed or not."""
    model = ChatDLLM(**options(), output_version="v1")
    answer: Any = model.invoke("why?")
    streamed: Any = reduce(add, model.stream("why?"))
    for message in (answer, streamed):
        kinds = [(block["type"], block.get("text") or block.get("reasoning")) for block in message.content]
        assert kinds == blocks(answer)
        assert kinds[-1] == ("text", "yes")
    assert model.invoke([HumanMessage("why?"), answer, HumanMessage("why?")]).text == "yes"


def test_what_comes_back() -> None:
    """Thoughts go to the template, wherever messages have them; nothing of them is taken for text."""
    kept = AIMessage("a", additional_kwargs={"reasoning_content": "so"})
    standard = AIMessage([{"type": "reasoning", "reasoning": "so"}, {"type": "text", "text": "a"}])
    other = AIMessage([{"type": "thinking", "thinking": "so", "signature": "x"}, {"type": "text", "text": "a"}])
    wanted = {"role": "assistant", "content": "a", "reasoning_content": "so"}
    assert chat_of([kept, standard, other]) == [wanted] * 3
    unseen = AIMessage([{"type": "reasoning", "summary": []}, {"type": "text", "text": "a"}])
    assert chat_of([unseen]) == [{"role": "assistant", "content": "a"}]
    with pytest.raises(RequestError, match="reasoning"):
        chat_of([HumanMessage([{"type": "reasoning", "reasoning": "so"}])])


def test_the_switch(options: Callable[..., dict[str, Any]], chat: Callable[..., ChatDLLM]) -> None:
    """As a field and in a call; a part of the cache's key; refused where there is none."""
    model = ChatDLLM(**options(BRACKETS) | {"constraint": None, "max_tokens": 8})
    thinking = model.invoke("why?", thinking=True)
    assert blocks(thinking)[0][0] == "reasoning"
    assert thinking.content == ""
    assert "reasoning_content" not in model.invoke("why?").additional_kwargs
    own = model.model_copy(update={"thinking": True})
    assert blocks(own.invoke("why?")) == blocks(thinking)
    assert own._identifying_params != model._identifying_params
    with pytest.raises(OptionError, match=r"thinking=True.* no switch"):
        chat().invoke("why?", thinking=True)


def test_structured_output_behind_thoughts(options: Callable[..., dict[str, Any]]) -> None:
    """Both ways to ask for it; the raw message holds the thoughts."""
    model = ChatDLLM(**options() | {"constraint": None, "max_tokens": 60})
    for method in ("json_schema", "function_calling"):
        found: Any = model.with_structured_output(SCHEMA, method=method, include_raw=True).invoke("why?")
        assert isinstance(found["parsed"]["a"], bool)
        assert found["raw"].additional_kwargs["reasoning_content"]


def test_calls_behind_thoughts(options: Callable[..., dict[str, Any]]) -> None:
    """Whole and streamed."""
    model = ChatDLLM(**options() | {"constraint": None, "max_tokens": 100})
    bound = model.bind_tools([SCHEMA | {"description": "a pair"}], tool_choice="any")
    answer, streamed = bound.invoke("why?"), reduce(add, bound.stream("why?"))
    for message in (answer, streamed):
        [call] = message.tool_calls
        assert set(call["args"]) == {"a"}
        assert [block["type"] for block in message.content_blocks] == ["reasoning", "tool_call"]
        assert message.text == ""


def test_text_models(options: Callable[..., dict[str, Any]]) -> None:
    """The text is what is said; what was thought is in `generation_info`."""
    model = DLLM(**options())
    assert model.invoke("why?") == "yes" == "".join(model.stream("why?"))
    [[generation]] = model.generate(["why?"]).generations
    assert (generation.generation_info or {})["reasoning_content"]
    with pytest.raises(OptionError, match="raw=True"):
        model.invoke("why?", raw=True, thinking=False)
