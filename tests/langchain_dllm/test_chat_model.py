"""`ChatDLLM` on the tiny model."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import HumanMessage
from langchain_core.messages import SystemMessage
from langchain_core.prompts import ChatPromptTemplate

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins.engine.profile import PARTS
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]
Engine = Callable[..., Finish]


@pytest.mark.parametrize("mode", ["speculative", "diffusion", "ar"])
def test_invoke_and_stream_give_the_engines_answer(chat: Chat, engine: Engine, mode: str) -> None:
    """Text, usage and statistics; usage on the last chunk only."""
    expected = engine("why?", mode=mode)
    answer = chat(mode=mode).invoke("why?")
    assert answer.content == expected.text
    chunks = list(chat(mode=mode).stream("why?"))
    assert "".join(str(chunk.content) for chunk in chunks) == expected.text
    with_usage = [chunk for chunk in chunks if isinstance(chunk, AIMessageChunk) and chunk.usage_metadata]
    assert with_usage == [chunks[-1]]
    for found in (answer, chunks[-1]):
        assert isinstance(found, AIMessage)
        assert found.usage_metadata is not None
        assert found.usage_metadata["output_tokens"] == len(expected.tokens)
        assert found.usage_metadata["input_tokens"] == expected.usage.prompt_tokens
        assert found.response_metadata["model_name"] == "dllm"
        statistics = found.response_metadata["statistics"]
        assert statistics["passes"] == expected.usage.passes
        assert statistics["tokens_per_forward"] == expected.usage.as_dict()["tokens_per_forward"]


def test_times_by_part(chat: Chat) -> None:
    """`stats` as a field or in a call: seconds by part among the statistics, in streams too."""
    answer = chat(stats=True, max_tokens=8).invoke("why?")
    assert answer.response_metadata["statistics"]["parts"].keys() >= PARTS.keys()
    last = list(chat(max_tokens=8).stream("why?", stats=True))[-1]
    assert last.response_metadata["statistics"]["parts"].keys() >= PARTS.keys()
    assert "parts" not in chat(max_tokens=8).invoke("why?").response_metadata["statistics"]


def test_history_and_system_message(chat: Chat, engine: Engine) -> None:
    """Roles reach the chat template; content may be text blocks."""
    history = [("system", "be brief"), ("user", "why?"), ("assistant", "so"), ("user", "and?")]
    expected = engine(history).text
    messages = [
        SystemMessage("be brief"),
        HumanMessage([{"type": "text", "text": "why?"}]),
        AIMessage("so"),
        HumanMessage("and?"),
    ]
    assert chat().invoke(messages).content == expected
    template = ChatPromptTemplate.from_messages(
        [("system", "be {how}"), ("human", "why?"), ("ai", "so"), ("human", "and?")]
    )
    assert (template | chat()).invoke({"how": "brief"}).content == expected


def test_options_of_the_model_and_of_a_call(chat: Chat, engine: Engine) -> None:
    """A call's option goes before the model's; stop cuts."""
    sampled = engine("why?", temperature=0.8, seed=4, top_k=20).text
    assert chat(temperature=0.8, seed=4, top_k=20).invoke("why?").content == sampled
    assert chat(seed=1).bind(temperature=0.8, seed=4, top_k=20).invoke("why?").content == sampled
    whole = engine("why?").text
    stop = whole[5:7]
    cut = whole[: whole.index(stop)]
    assert chat().invoke("why?", stop=[stop]).content == cut
    assert chat(stop=[stop]).invoke("why?").content == cut
    short = chat().invoke("why?", max_tokens=3)
    assert short.usage_metadata is not None
    assert short.usage_metadata["output_tokens"] == 3


def test_batch_and_async(chat: Chat, engine: Engine) -> None:
    """Several callers of one model."""
    questions: list[Any] = ["why?", "how come?", "when exactly?"]
    expected = [engine(question).text for question in questions]
    assert [answer.content for answer in chat().batch(questions)] == expected

    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(chat().ainvoke(question) for question in questions)))

    assert [answer.content for answer in asyncio.run(ask())] == expected


def test_cache_key_covers_every_option(chat: Chat) -> None:
    """Two models that differ in one option do not share an answer."""
    fields = set(ChatDLLM.model_fields) - set(BaseChatModel.model_fields)
    same_text = {"timeout", "max_retries", "streaming", "api_key"}
    assert set(chat()._identifying_params) - {"stop_sequences"} == fields - same_text - {"stop"}
    cache = InMemoryCache()
    first = chat(cache=cache, mode="diffusion", threshold=0.9)
    other = chat(cache=cache, mode="diffusion", threshold=0.02)
    assert first.invoke("why?").content != other.invoke("why?").content
    assert len(cache._cache) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "telepathy"}, "telepathy"),
        ({"temperature": -1.0}, "temperature"),
        ({"telepathy": 1}, "telepathy"),
        ({"threshold": 0.5}, "threshold"),
        ({"top_p": 0.5}, "top_p"),
    ],
)
def test_bad_options_of_a_call(chat: Chat, options: dict[str, Any], words: str) -> None:
    """Raised, never ignored."""
    with pytest.raises(DllmError, match=words):
        chat().invoke("why?", **options)


def test_bad_options_of_the_model(chat: Chat) -> None:
    """Raised when the model is made."""
    with pytest.raises(ValueError, match="temperature"):
        chat(temperature=-1.0)
    with pytest.raises(ValueError, match="telepathy"):
        chat(telepathy=1)


def test_what_is_not_supported_says_so(chat: Chat) -> None:
    """Images, empty prompts."""
    with pytest.raises(DllmError, match="image"):
        chat().invoke([HumanMessage([{"type": "image", "url": "x"}])])
    with pytest.raises(DllmError, match="empty"):
        chat().invoke(" ")


def test_both_spellings_of_the_model_name(chat: Chat) -> None:
    """`model` and `model_name`; an unknown name lists the known ones."""
    assert chat(model="dllm").model_name == chat(model_name="dllm").model_name == "dllm"
    with pytest.raises(DllmError, match="dllm"):
        chat(model="nonesuch").invoke("why?")


def test_missing_extra_is_explained() -> None:
    """Without langchain-core the import names the command that mends it."""
    code = "import sys; sys.modules['langchain_core'] = None; import langchain_dllm"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'dllm-plugins[langchain]'" in result.stderr
