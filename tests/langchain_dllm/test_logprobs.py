"""Log-probabilities in OpenAI's shape, several answers to one prompt, and what a model says of itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import HumanMessage

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Model
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]
Text = Callable[..., DLLM]
Engine = Callable[..., Finish]
SAMPLED: dict[str, Any] = {"temperature": 1.5, "seed": 3}


def entries(finish: Finish, model: Model) -> list[dict[str, Any]]:
    """What is expected of an answer of single bytes, in OpenAI's words."""
    assert finish.logprobs is not None
    return [
        {**one(model, said.token, said.logprob), "top_logprobs": [one(model, *pair) for pair in said.top]}
        for said in finish.logprobs[: len(finish.tokens)]
    ]


def one(model: Model, token: int, logprob: float | None) -> dict[str, Any]:
    special = token in model.tokenizer.added_tokens_decoder
    letter = model.tokenizer.convert_ids_to_tokens(token)
    found = letter.encode() if special else bytes([BYTES[letter]])
    return {"token": found.decode(errors="replace"), "logprob": pytest.approx(logprob, abs=1e-5), "bytes": list(found)}


#: As published with GPT-2: printable Latin-1 letters stand for themselves, the other bytes follow from U+0100 on.
PRINTABLE = [byte for byte in range(256) if chr(byte).isprintable() and byte not in (0x20, 0xA0, 0xAD)]
BYTES = {chr(byte): byte for byte in PRINTABLE}
BYTES |= {chr(256 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(PRINTABLE)))}


@pytest.mark.parametrize(
    ("options", "alternatives"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 3}, 3),
        ({"top_logprobs": 2}, 2),
        ({"logprobs": 2}, 2),
        ({"logprobs": 0}, 0),
    ],
)
def test_however_they_are_asked_for(
    chat: Chat, engine: Engine, tiny: Model, options: dict[str, Any], alternatives: int
) -> None:
    """As a switch and a number, or a number alone; as fields and in a call; the stream's chunks add up to the same."""
    finish = engine("why?", **SAMPLED, logprobs=alternatives)
    expected = {"content": entries(finish, tiny)}
    assert len(expected["content"]) == len(finish.tokens) > 3
    for answer in (chat(**options, **SAMPLED).invoke("why?"), chat(**SAMPLED).invoke("why?", **options)):
        assert answer.response_metadata["logprobs"] == expected
        assert answer.content == finish.text
    whole: Any = None
    for chunk in chat(**options, **SAMPLED).stream("why?"):
        whole = chunk if whole is None else whole + chunk
    assert isinstance(whole, AIMessageChunk)
    assert whole.response_metadata["logprobs"] == expected
    assert whole.content == finish.text


async def test_the_last_look_is_told_at_the_end(chat: Chat, text: Text, engine: Engine, tiny: Model) -> None:
    """Once, whole, and in asyncio too; the text model has it in `generation_info`."""
    options: dict[str, Any] = {"mode": "diffusion", "logprobs_at": "final"}
    finish = engine("why?", **options, logprobs=1)
    expected = {"content": entries(finish, tiny)}
    given = {**options, "logprobs": True, "top_logprobs": 1}
    chunks = [chunk async for chunk in chat(**given).astream("why?")]
    assert [chunk.response_metadata["logprobs"] for chunk in chunks if "logprobs" in chunk.response_metadata] == [
        expected
    ]
    assert (await chat(**given).ainvoke("why?")).response_metadata["logprobs"] == expected
    (generation,) = text(**given).generate(["why?"]).generations[0]
    assert (generation.generation_info or {})["logprobs"] == expected
    (generation,) = text(**given, streaming=True).generate(["why?"]).generations[0]
    assert (generation.generation_info or {})["logprobs"] == expected
    assert "logprobs" not in chat(mode="diffusion").invoke("why?").response_metadata


def test_streamed_text_generations_have_them_all(text: Text, engine: Engine, tiny: Model) -> None:
    """Those of settling, put together from the chunks."""
    expected = {"content": entries(engine("why?", logprobs=0), tiny)}
    (generation,) = text(logprobs=True, streaming=True).generate(["why?"]).generations[0]
    assert (generation.generation_info or {})["logprobs"] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"logprobs": False, "top_logprobs": 2},
        {"logprobs": 3, "top_logprobs": 2},
        {"top_logprobs": 21},
        {"logprobs": 21},
        {"top_logprobs": -1},
        {"logprobs_at": "final"},
        {"logprobs": True, "logprobs_at": "later"},
        {"n": 0},
        {"n": True},
        {"n": 1000},
    ],
)
def test_what_cannot_be_is_refused(chat: Chat, options: dict[str, Any]) -> None:
    """In a call and as fields, by the argument's name."""
    name = next(reversed(options))
    with pytest.raises(DllmError, match=name):
        chat().invoke("why?", **options)
    with pytest.raises(DllmError, match=name):
        chat(**options)


@pytest.mark.parametrize("wanted", ["invoke", "ainvoke"])
async def test_several_answers(chat: Chat, text: Text, engine: Engine, rows: list[int], wanted: str) -> None:
    """Decoded together, each by a seed of its own, with its own usage; `llm_output` has the sum."""
    expected = [engine("why?", temperature=1.5, seed=3 + place) for place in range(3)]
    model: Any
    for model in (chat(n=3, **SAMPLED), text(n=3, **SAMPLED)):
        rows.clear()
        prompts: list[Any] = [[HumanMessage("why?")]] if isinstance(model, ChatDLLM) else ["why?"]
        result = model.generate(prompts) if wanted == "invoke" else await model.agenerate(prompts)
        assert max(rows) == 3
        (generations,) = result.generations
        assert [generation.text for generation in generations] == [finish.text for finish in expected]
        sums = result.llm_output["token_usage"]
        assert sums["output_tokens"] == sum(finish.usage.useful_tokens for finish in expected)
        assert sums["input_tokens"] == sum(finish.usage.prompt_tokens for finish in expected)
    (generations,) = chat(n=3, **SAMPLED).generate([[HumanMessage("why?")]]).generations
    for generation, finish in zip(generations, expected, strict=True):
        message: Any = generation.message  # type: ignore[attr-defined]  # chat models give ChatGenerations
        assert message.usage_metadata["output_tokens"] == finish.usage.useful_tokens
        assert message.response_metadata["statistics"]["seed"] == finish.usage.seed


async def test_the_first_of_several_is_the_answer(chat: Chat, engine: Engine) -> None:
    """Of `invoke` and `batch`; a stream is one answer, and says so."""
    first = engine("why?", **SAMPLED).text
    model = chat(n=2, **SAMPLED)
    assert [answer.content for answer in model.batch(["why?", "why?"])] == [first, first]
    assert (await model.ainvoke("why?")).content == first
    with pytest.raises(DllmError, match="n=2: a stream is one answer"):
        list(model.stream("why?"))
    with pytest.raises(DllmError, match="n=2: a stream is one answer"):
        [chunk async for chunk in model.astream("why?")]


def test_what_a_callback_counts(chat: Chat, engine: Engine) -> None:
    """Usage reaches LangChain's own counters."""
    finish = engine("why?")
    with get_usage_metadata_callback() as counted:
        chat().invoke("why?")
        chat().invoke("why?")
    assert counted.usage_metadata["dllm"]["output_tokens"] == 2 * finish.usage.useful_tokens


def test_profile(chat: Chat, loading: dict[str, Any], tiny_folder: Path) -> None:
    """Before the model is loaded, from its config; one that is given stays."""
    profile = ChatDLLM(**loading).profile
    assert profile is not None
    assert profile["max_input_tokens"] == 512
    assert profile["text_inputs"] is True
    assert profile["image_inputs"] is False
    assert chat(profile={"max_input_tokens": 7}).profile == {"max_input_tokens": 7}
    unknown = ChatDLLM(model="nobody/nowhere").profile
    assert unknown is not None
    assert "max_input_tokens" not in unknown
    folder = ChatDLLM(model=str(tiny_folder)).profile
    assert folder is not None
    assert folder["max_input_tokens"] == 512


def test_answers_with_and_without_logprobs_are_cached_apart(chat: Chat) -> None:
    """A cached message without them is no answer to a call that asks for them."""
    from langchain_core.caches import InMemoryCache

    model = chat(cache=InMemoryCache())
    plain = model.invoke("why?")
    told = model.invoke("why?", logprobs=True)
    assert isinstance(plain, AIMessage)
    assert "logprobs" not in plain.response_metadata
    assert "logprobs" in told.response_metadata
    assert "logprobs" in model.invoke("why?", logprobs=True).response_metadata
