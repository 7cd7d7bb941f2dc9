"""`suffix` and texts with markers in LangChain."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

from dllm_plugins import DllmError
from dllm_plugins import Edit
from dllm_plugins import FilledText
from dllm_plugins import Gap
from dllm_plugins import JsonSchema
from dllm_plugins import Model
from dllm_plugins import Regex
from dllm_plugins import Template
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

Text = Callable[..., DLLM]
TEXT = "once<fill> upon<fill> a time"


@pytest.fixture
def around(tiny: Model) -> FilledText:
    """What stands between two texts."""
    return tiny.fill(Template("once", Gap(max_tokens=20), " upon"))


async def test_suffix_in_every_way_of_calling(text: Text, around: FilledText) -> None:
    """In a call, bound, and as a field; the prompt is the very text, and the answer what fills the gap."""
    expected = around.gaps[0]
    assert text().invoke("once", suffix=" upon") == expected
    assert text().bind(suffix=" upon").invoke("once") == expected
    assert text(suffix=" upon").invoke("once") == expected
    assert "".join(text(suffix=" upon").stream("once")) == expected
    assert await text(suffix=" upon").ainvoke("once") == expected
    assert "".join([chunk async for chunk in text(suffix=" upon").astream("once")]) == expected
    assert text(suffix=" upon").batch(["once", "once"]) == [expected] * 2
    assert text(suffix=" upon", streaming=True).invoke("once") == expected


async def test_texts_with_markers(text: Text, tiny: Model) -> None:
    """In a chain; the answer is the whole text, and the gaps stand beside it."""
    found = tiny.fill(Template.of_text(TEXT, Gap(max_tokens=20)))
    chain = PromptTemplate.from_template("once<fill> {word}<fill> a time") | text(gap="<fill>") | StrOutputParser()
    assert chain.invoke({"word": "upon"}) == found.text
    assert "".join(chain.stream({"word": "upon"})) == found.text
    assert await text().ainvoke(TEXT, gap="<fill>") == found.text
    result = text(gap="<fill>").generate([TEXT])
    info = result.generations[0][0].generation_info
    assert info is not None
    assert info["gaps"] == list(found.gaps)
    assert info["usage"]["output_tokens"] == found.usage.useful_tokens


def test_a_gap_is_not_as_long_as_an_answer(loading: dict[str, Any], tiny: Model) -> None:
    """Unless max_tokens says so, in the model or in the call."""
    options = {name: value for name, value in loading.items() if name != "max_tokens"}
    model = DLLM(**options, suffix=" upon")
    assert model.invoke("once") == tiny.fill(Template("once", Gap(max_tokens=64), " upon")).gaps[0]
    assert model.invoke("once", max_tokens=3) == tiny.fill(Template("once", Gap(max_tokens=3), " upon")).gaps[0]


def test_a_chat_that_ends_with_a_text(chat: Callable[..., ChatDLLM], tiny: Model) -> None:
    """The assistant's answer is what stands before it."""
    asked = [{"role": "user", "content": "why?"}]
    expected = tiny.fill(Template(Gap(max_tokens=20), " upon", chat=asked))
    answer = chat().invoke("why?", suffix=" upon")
    assert answer.content == expected.gaps[0]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == expected.usage.useful_tokens
    assert "".join(str(chunk.content) for chunk in chat(suffix=" upon").stream("why?")) == expected.gaps[0]


async def test_what_an_answer_must_be(text: Text, chat: Callable[..., ChatDLLM]) -> None:
    """It is what stands before a suffix; of a text with markers it is all of it."""
    digits = Regex("[0-9]{2,3}")
    assert re.fullmatch(digits.pattern, text().invoke("once", suffix=" upon", constraint=digits))
    assert re.fullmatch(digits.pattern, "".join(text(suffix=" upon", constraint=digits).stream("once")))
    assert re.fullmatch(digits.pattern, await text(constraint=digits).ainvoke("once", suffix=" upon"))
    schema = {"type": "integer", "minimum": 10, "maximum": 99}
    answer = chat().invoke("why?", suffix=" years", constraint=JsonSchema(schema))
    assert 10 <= int(str(answer.content)) <= 99
    answer = chat().invoke("why?", suffix=" years", response_format=schema_format(schema))
    assert 10 <= int(str(answer.content)) <= 99
    whole = text(gap="<fill>", constraint=JsonSchema({"type": "object", "properties": {"a": schema}})).invoke(
        '{"a": <fill>}'
    )
    assert 10 <= json.loads(whole)["a"] <= 99


def schema_format(schema: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI's users give a schema."""
    return {"type": "json_schema", "json_schema": {"name": "years", "schema": schema}}


def test_caches_tell_them_apart(text: Text, chat: Callable[..., ChatDLLM]) -> None:
    """An answer that was given for one suffix is none for another."""
    for make in (text, chat):
        assert make(suffix="a")._identifying_params != make(suffix="b")._identifying_params
    assert text(gap="a")._identifying_params != text()._identifying_params


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"suffix": "a", "gap": "b"}, "give one of them"),
        ({"gap": "<fill>"}, "no '<fill>'"),
        ({"gap": ""}, "gap"),
        ({"suffix": 3}, "suffix"),
        ({"suffix": "a", "mode": "ar"}, "use mode 'diffusion'"),
        ({"suffix": "a", "max_tokens": 3, "constraint": Regex("b{9}")}, "gap 1: the shortest text"),
    ],
)
def test_what_cannot_be_filled(text: Text, options: dict[str, Any], words: str) -> None:
    """An error that says so."""
    with pytest.raises(DllmError, match=words):
        text().invoke("once", **options)


async def test_spans_are_written_anew(text: Text, tiny: Model) -> None:
    """In a call, bound, and as a field; the answer is the whole text, and beside it what became of each span."""
    whole = "once upon a time"
    found = tiny.edit(Edit(whole, [(5, 9)], 20))
    assert text().invoke(whole, spans=[(5, 9)]) == found.text
    assert "".join(text().bind(spans=[(5, 9)]).stream(whole)) == found.text
    assert await text(spans=((5, 9),)).ainvoke(whole) == found.text
    info = text(spans=[[5, 9]]).generate([whole]).generations[0][0].generation_info
    assert info is not None
    assert info["edits"] == [change.as_dict() for change in found.changes]
    for options in ({"spans": [(5, 99)]}, {"spans": [(5, 9)], "suffix": "x"}, {"spans": "5:9"}):
        with pytest.raises(DllmError, match="span"):
            text().invoke(whole, **options)
