"""Structured output: answers as objects, by every method and from every kind of schema."""

import json
from collections.abc import Callable
from typing import Any
from typing import Literal
from typing import TypedDict

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from pydantic import BaseModel
from pydantic import Field
from pydantic import field_validator

from dllm_plugins import JsonSchema
from dllm_plugins import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

Chat = Callable[..., ChatDLLM]


class Pet(BaseModel):
    """An animal."""

    kind: Literal["cat", "dog"]
    age: int = Field(ge=0, le=30, description="in years")


class PetDict(TypedDict):
    """An animal."""

    kind: Literal["cat", "dog"]
    age: int


SCHEMA = Pet.model_json_schema()
FUNCTION = {"type": "function", "function": {"name": "pet", "description": "one", "parameters": SCHEMA}}
METHODS = ["json_schema", "function_calling", "json_mode"]


@pytest.fixture
def model(chat: Chat) -> ChatDLLM:
    """With room for a pet."""
    return chat(max_tokens=60, temperature=1.0, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_a_class_gives_its_objects(model: ChatDLLM, method: str) -> None:
    found = model.with_structured_output(Pet, method=method).invoke("a pet")
    assert isinstance(found, Pet)
    assert 0 <= found.age <= 30


@pytest.mark.parametrize("schema", [SCHEMA, PetDict, FUNCTION, FUNCTION["function"]])
@pytest.mark.parametrize("method", METHODS)
def test_other_schemas_give_dicts(model: ChatDLLM, schema: Any, method: str) -> None:
    found = model.with_structured_output(schema, method=method).invoke("a pet")
    assert found.keys() == {"kind", "age"}
    assert found["kind"] in ("cat", "dog")


@pytest.mark.parametrize("method", METHODS)
def test_raw_messages_come_with_what_was_made_of_them(model: ChatDLLM, method: str) -> None:
    found: Any = model.with_structured_output(Pet, method=method, include_raw=True).invoke("a pet")
    assert found.keys() == {"raw", "parsed", "parsing_error"}
    assert isinstance(found["raw"], AIMessage)
    assert found["parsing_error"] is None
    if method == "function_calling":
        assert found["raw"].tool_calls[0]["name"] == "Pet"
        assert Pet(**found["raw"].tool_calls[0]["args"]) == found["parsed"]
        assert not found["raw"].content
    else:
        assert Pet.model_validate_json(str(found["raw"].content)) == found["parsed"]


@pytest.mark.parametrize("method", METHODS)
async def test_streams_grow_to_what_is_invoked(model: ChatDLLM, method: str) -> None:
    pets = model.with_structured_output(SCHEMA, method=method)
    chunks = [*pets.stream("a pet")]
    assert chunks[-1] == pets.invoke("a pet") == await pets.ainvoke("a pet")
    assert all(chunk.keys() <= {"kind", "age"} for chunk in chunks)
    assert [chunk async for chunk in pets.astream("a pet")] == chunks


def test_streamed_calls_are_whole_once_they_are_added(model: ChatDLLM) -> None:
    streamed: Any = model.with_structured_output(Pet, method="function_calling", include_raw=True).stream("a pet")
    raw = None
    for chunk in streamed:
        raw = chunk["raw"] if raw is None and "raw" in chunk else raw + chunk["raw"] if "raw" in chunk else raw
    assert isinstance(raw, AIMessageChunk)
    assert [call["name"] for call in raw.tool_calls] == ["Pet"]
    Pet(**raw.tool_calls[0]["args"])


def test_what_the_class_refuses_is_a_parsing_error(model: ChatDLLM) -> None:
    class Wary(Pet):
        @field_validator("age")
        @classmethod
        def _never(cls, value: int) -> int:
            raise ValueError("too shy")

    with pytest.raises(OutputParserException, match="too shy"):
        model.with_structured_output(Wary).invoke("a pet")
    found: Any = model.with_structured_output(Wary, include_raw=True).invoke("a pet")
    assert found["parsed"] is None
    assert "too shy" in str(found["parsing_error"])


def test_a_call_that_was_cut_is_none(model: ChatDLLM) -> None:
    """Whole and streamed: LangChain itself would close its brackets."""
    bound = model.bind(constraint=JsonSchema(SCHEMA), as_tool="pet", stop=["age"])
    chunks: list[Any] = list(bound.stream("a pet"))
    for message in (bound.invoke("a pet"), sum(chunks[1:], start=chunks[0])):
        assert message.tool_calls == []
        [cut] = message.invalid_tool_calls
        assert cut["name"] == "pet"


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_that_a_stop_string_has_cut_is_no_object(model: ChatDLLM, method: str) -> None:
    cut = model.with_structured_output(SCHEMA, method=method)
    with pytest.raises(OutputParserException, match="leave stop out"):
        cut.invoke("a pet", stop=["age"])
    with pytest.raises(OutputParserException, match="leave stop out"):
        for _ in cut.stream("a pet", stop=["age"]):
            pass


def test_any_object_will_do_without_a_schema(model: ChatDLLM) -> None:
    assert isinstance(model.with_structured_output(method="json_mode").invoke("a pet"), dict)


@pytest.mark.parametrize(
    ("response_format", "kind"),
    [
        ({"type": "json_object"}, dict),
        ({"type": "json_schema", "json_schema": {"name": "pet", "schema": {"type": "integer"}}}, int),
        (Pet, dict),
    ],
)
def test_a_call_may_say_it_as_openai_does(model: ChatDLLM, response_format: Any, kind: type) -> None:
    answer = model.invoke("a pet", response_format=response_format)
    assert isinstance(json.loads(str(answer.content)), kind)


def test_constraints_are_options_of_models_and_calls(chat: Chat, text: Callable[..., DLLM]) -> None:
    word = Regex("(yes|no)")
    assert chat(constraint=word).invoke("is it?").content in ("yes", "no")
    assert chat().invoke("is it?", constraint=word).content in ("yes", "no")
    assert text(constraint=word).invoke("is it?") in ("yes", "no")
    plain = chat(constraint=word).invoke("is it?", response_format={"type": "text"})
    assert plain.content not in ("yes", "no")
    # Another constraint is another answer for LangChain's cache.
    keys = [chat(constraint=one)._get_llm_string() for one in (None, word, JsonSchema(SCHEMA))]
    assert len(set(keys)) == 3


def test_what_has_no_meaning_is_refused(model: ChatDLLM, text: Callable[..., DLLM]) -> None:
    for options, words in (
        ({"method": "magic"}, "method='magic' is unknown; use json_schema, function_calling, json_mode"),
        ({"method": "json_mode", "strict": True}, "strict=True has no meaning"),
        ({"tools": []}, "does not take tools"),
    ):
        with pytest.raises(OptionError, match=words):
            model.with_structured_output(Pet, **options)
    for schema, words in (
        ({"type": "object", "not": {}}, "'not' at #"),
        (None, "needs a schema"),
        (3, "describes no answer"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "allows no value"),
    ):
        with pytest.raises(OptionError, match=words):
            model.with_structured_output(schema)
    with pytest.raises(OptionError, match="arguments of a function are an object"):
        model.with_structured_output({"type": "array"}, method="function_calling")
    with pytest.raises(OptionError, match="give one of them"):
        model.invoke("a", constraint=Regex("a"), response_format={"type": "json_object"})
    with pytest.raises(OptionError, match="response_format="):
        model.invoke("a", response_format={"type": "xml"})
    with pytest.raises(OptionError, match="use ChatDLLM"):
        text().with_structured_output(Pet)


def test_an_answer_without_room_is_refused_before_it_begins(chat: Chat) -> None:
    with pytest.raises(RequestError, match="raise max_tokens"):
        chat(max_tokens=3).with_structured_output(Pet).invoke("a pet")
