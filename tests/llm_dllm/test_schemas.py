"""`llm --schema` in all its forms: what is printed and logged is JSON that the schema allows."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import Result
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from dllm_plugins import JsonSchema
from dllm_plugins.errors import OptionError

Run = Callable[..., Result]
Answer = Callable[..., str]
ASK = [{"role": "user", "content": "a dog"}]
SHORT = "name, age int: in years, good bool"
SCHEMA: dict[str, Any] = llm.schema_dsl(SHORT)
ROOM = ["-o", "max_tokens", "60"]


def valid(text: str, schema: dict[str, Any] = SCHEMA) -> bool:
    """Whether a text is JSON that the schema allows."""
    return bool(Draft202012Validator(schema).is_valid(json.loads(text)))


@pytest.mark.parametrize("stream", [True, False])
def test_the_short_form_and_json_give_the_same(run: Run, answer: Answer, stream: bool) -> None:
    same = answer(ASK, max_new_tokens=60, constraint=JsonSchema(SCHEMA))
    more = [*ROOM, *([] if stream else ["--no-stream"])]
    for schema in (SHORT, json.dumps(SCHEMA)):
        shown = run("-m", "dllm", "a dog", "--schema", schema, *more).stdout
        assert shown == same + "\n"
        assert valid(shown)


def test_a_file_and_a_stored_schema_do_as_well(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "dog.json"
    file.write_text(json.dumps(SCHEMA))
    assert valid(run("-m", "dllm", "a dog", "--schema", str(file), *ROOM).stdout)
    stored = llm.utils.make_schema_id(SCHEMA)[0]
    assert valid(run("-m", "dllm", "a dog", "--schema", stored, *ROOM).stdout)
    logged = [json.loads(line) for line in run("logs", "--schema", stored, "--data").stdout.splitlines()]
    assert len(logged) == 2
    assert all(entry.keys() == {"name", "age", "good"} for entry in logged)


def test_several_objects(run: Run) -> None:
    shown = run("-m", "dllm", "dogs", "--schema-multi", "name, age int", "-o", "max_tokens", "80").stdout
    assert valid(shown, llm.utils.multi_schema(llm.schema_dsl("name, age int")))


def test_a_template_keeps_its_schema(run: Run) -> None:
    run("--schema", SHORT, "--system", "invent", "--save", "dog")
    assert valid(run("-m", "dllm", "-t", "dog", "a dog", *ROOM).stdout)


def test_python_takes_dicts_and_classes(dllm: llm.Model) -> None:
    class Dog(BaseModel):
        name: str
        age: int

    for schema in (SCHEMA, Dog):
        text = dllm.prompt("a dog", schema=schema, max_tokens=60).text()
        assert valid(text, SCHEMA if schema is SCHEMA else Dog.model_json_schema())


def test_asyncio_gives_the_same(dllm: llm.Model) -> None:
    async def ask() -> str:
        return await llm.get_async_model("dllm").prompt("a dog", schema=SCHEMA, max_tokens=60).text()

    assert asyncio.run(ask()) == dllm.prompt("a dog", schema=SCHEMA, max_tokens=60).text()


def test_a_regular_expression_is_an_option(run: Run) -> None:
    assert run("-m", "dllm", "is it?", "-o", "regex", "(yes|no)!").stdout in ("yes!\n", "no!\n")


def test_the_model_says_that_it_takes_schemas(run: Run) -> None:
    assert "dllm" in run("models", "list", "--schemas").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--schema", '{"type": "object", "not": {}}'], "'not' at #"),
        (["--schema", '{"type": "integer", "minimum": 2, "maximum": 1}'], "allows no value"),
        (["--schema", SHORT, "-o", "max_tokens", "5"], "raise max_tokens"),
        (["--schema", SHORT, "-o", "regex", "a"], "--schema and regex all say what the answer must be"),
        (["-o", "regex", "("], "no regular expression"),
    ],
)
def test_what_cannot_be_held_is_refused_before_anything_is_written(run: Run, arguments: list[str], words: str) -> None:
    result = run("-m", "dllm", "a dog", *arguments, code=1)
    assert words in result.output
    assert result.stdout == ""


def test_a_stop_string_that_cuts_json_says_so(run: Run) -> None:
    result = run("-m", "dllm", "a dog", "--schema", SHORT, *ROOM, "-o", "stop", "age")
    assert result.stdout == '{"name": "' + result.stdout[10:]
    assert "before it was complete JSON" in result.stderr


def test_options_that_say_the_same_are_refused_in_python(dllm: llm.Model) -> None:
    with pytest.raises(llm.ModelError, match="give one of them"):
        dllm.prompt("a", schema=SCHEMA, regex="a").text()
    with pytest.raises(OptionError, match="regex and grammar all say"):
        dllm.prompt("a", regex="a", grammar="start: /a/")
