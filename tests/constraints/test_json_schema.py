"""JSON schemas as languages: jsonschema says what is right, text by text."""

import datetime
import decimal
import enum
import json
import random
import re
import uuid
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from pydantic import Field
from pydantic import HttpUrl

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.json_schema import tree_of
from dllm_plugins.constraints.schemas.formats import FORMATS
from dllm_plugins.constraints.schemas.formats import NUMBERS
from dllm_plugins.constraints.schemas.keywords import ANNOTATIONS
from dllm_plugins.constraints.schemas.keywords import REFUSED as REFUSED_KEYWORDS
from dllm_plugins.constraints.schemas.keywords import SUPPORTED
from dllm_plugins.errors import OptionError

from .members import members
from .schemas import random_schema

Schema = dict[str, Any]
DEFS: Schema = {"$defs": {"age": {"type": "integer", "minimum": 0}, "named": {"properties": {"n": {"type": "string"}}}}}


LEAF: Schema = {"type": "integer", "minimum": 0, "maximum": 9}
TREE: Schema = {
    "$ref": "#/$defs/Tree",
    "$defs": {
        "Tree": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "maxLength": 5},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
            },
            "required": ["name", "children"],
        }
    },
}


def expression(kind: str, **parts: Any) -> Schema:
    """One option of a union whose members hold one another."""
    properties = {**parts, "kind": {"const": kind}}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


SUM: Schema = {
    "$ref": "#/$defs/E",
    "$defs": {
        "E": {"oneOf": [{"$ref": "#/$defs/N"}, {"$ref": "#/$defs/S"}]},
        "N": expression("number", value=LEAF),
        "S": expression("sum", a={"$ref": "#/$defs/E"}, b={"$ref": "#/$defs/E"}),
    },
}
_ONE = {"value": 1, "kind": "number"}


def check(schema: Schema | bool, count: int = 20, seed: int = 0) -> None:
    """Random members of the language are JSON that the schema allows."""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for text in members(tree_of(schema), seed, count):
        error = next(validator.iter_errors(json.loads(text)), None)
        assert error is None, (text, error)


def entries(**properties: Any) -> Schema:
    """A schema of an object."""
    return {"type": "object", "properties": properties}


#: A schema, values that are among the answers, and values that are not.
CASES: list[tuple[Schema | bool, list[Any], list[Any]]] = [
    (True, [None, 1, "a", [1, {"a": 2}]], [[[[1]]]]),
    ({"type": "null"}, [None], [0, False]),
    ({"type": ["boolean", "string"]}, [True, False, 'é\n"\\'], [None, 1]),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, [-3, 0, 9, 11], [-4, 12, 1.5]),
    ({"type": "integer", "multipleOf": 7, "minimum": 0}, [0, 7, 777777], [1, 15, -7]),
    ({"type": "integer", "multipleOf": 1e3}, [-2000, 10**14], [10, 10**15]),
    ({"type": "number", "exclusiveMinimum": 0.3, "maximum": 2}, [0.4, 0.31, 2, 1.999999], [0.3, 0.29, 2.01, -1]),
    ({"type": "number", "multipleOf": 0.25, "minimum": 0}, [0.25, 10.5], [0.1, 0.26]),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1}, [0.5, 0.99], [0.07, 0.005, 1.5]),
    ({"type": "number", "multipleOf": 4}, [8, -12], [2, 8.5]),
    ({"type": "number"}, [0, -1.5, 1e-9, 12345.678], []),
    ({"type": "integer", "format": "int32"}, [2**31 - 1, -(2**31)], [2**31]),
    ({"minimum": 5}, [5, 7.5], [4, "a", None]),
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "é😀", '"\\\n'], ["a", "abcd", ""]),
    ({"type": "string", "minLength": 2}, ["ab", "a" * 99], ["", "a"]),
    ({"type": "string", "pattern": "b+"}, ["b", "abba"], ["a", ""]),
    ({"type": "string", "pattern": "^a|b$"}, ["ax", "xb"], ["xa", "bx"]),
    ({"type": "string", "pattern": r"^(?:\d{3}|\"q\"\\)$"}, ["123", '"q"\\'], ["12", "1234"]),
    ({"type": "string", "pattern": r"^\w\W$"}, ["a-", "_ "], ["é-", "aé", "ab"]),
    ({"type": "string", "pattern": "^[^a]$", "maxLength": 1}, ["é", '"'], ["a", ""]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "1999-12-31"], ["2023-02-29", "1900-02-29", "2024-04-31"]),
    ({"type": "string", "format": "time"}, ["23:59:59Z", "00:00:00.5+02:00"], ["24:00:00Z", "12:00:00", "12:00Z"]),
    ({"type": "string", "format": "ipv6"}, ["::", "::1", "1:2:3:4:5:6:7:8", "fe80::a:b"], ["1:2", "1::2::3", ":1"]),
    ({"type": "string", "format": "email", "maxLength": 12}, ["a.b@c.de"], ["a@b", "long.name@example.org"]),
    ({"enum": [1, "a", None, {"é": [1.5]}], "type": ["integer", "object"]}, [1, {"é": [1.5]}], ["a", None]),
    ({"const": "<|im_end|>"}, ["<|im_end|>"], ["", "<|im_start|>"]),
    (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        [[None], [None] * 2],
        [[], [None] * 3],
    ),
    ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, [[], [1], [1, 2]], [[2], [1, 2, 3]]),
    ({"prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2}, [[1, 2], [1, 2, 2]], [[1], [1, 1]]),
    (
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2, "maxItems": 2},
        [["a", "b"], ["a", "c"]],
        [["a", "a"], ["a"], ["a", "b", "c"]],
    ),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 1}, [[], [3]], [[1, 2]]),
    (entries(a={"const": 1}, b={"const": 2}), [{}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}], [{"b": 2, "a": 1}, {"c": 1}]),
    ({**entries(a={"const": 1}, b={"const": 2}), "required": ["b"]}, [{"b": 2}, {"a": 1, "b": 2}], [{}, {"a": 1}]),
    ({**entries(a={"const": 1}), "required": ["z"]}, [{"z": 1}, {"a": 1, "z": "any"}], [{"a": 1}]),
    (
        {**entries(a={"const": 1}), "additionalProperties": {"type": "null"}},
        [{"a": 1, "x": None}, {"x": None}],
        [{"x": 1}, {"a": None}],
    ),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"a": 1, "b": 2}], [{"a": "b"}]),
    ({"type": "object", "additionalProperties": False}, [{}], [{"a": 1}]),
    ({"type": "object"}, [{}, {"a": [1], "b": {"c": None}}], [[]]),
    (
        {"patternProperties": {"^x": {"type": "integer"}, "y$": {"type": "null"}}},
        [{"xa": 1, "ay": None}],
        [{"xa": None}, {"b": 1}],
    ),
    ({**entries(a={}, b={}, c={}), "minProperties": 2}, [{"a": 1, "c": 2}, {"a": 0, "b": 0, "c": 0}], [{}, {"b": 1}]),
    ({**entries(a={}, b={}, c={}), "maxProperties": 1}, [{}, {"b": 1}], [{"a": 1, "b": 1}]),
    (
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"const": 1}},
        [{}, {"a": 1}, {"a": 1, "b": 1}],
        [{"c": 1}],
    ),
    ({"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}}, [{"abc": 1}], [{"d": 1}]),
    ({**entries(p={"$ref": "#/$defs/age"}), **DEFS}, [{"p": 3}], [{"p": -1}]),
    ({"$ref": "#/$defs/age", "maximum": 5, **DEFS}, [5], [6, -1]),
    ({"allOf": [{"$ref": "#/$defs/named"}, entries(m={"type": "null"})], **DEFS}, [{"n": "a", "m": None}], [{"n": 1}]),
    ({"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}, ["ab", None], ["abc", 1]),
    (
        {**entries(a={"const": 1}, b={"const": 2}), "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 2}, {"a": 1, "b": 2}],
        [{}],
    ),
    (
        {"oneOf": [{"type": "string"}, {"type": "number", "maximum": 0}, {"type": "number", "minimum": 1}]},
        ["a", 0, 1.5],
        [0.5, None],
    ),
    (entries(next={"$ref": "#"}), [{}, {"next": {}}, {"next": {"next": {"next": {}}}}], [{"next": 1}]),
    (SUM, [_ONE, {"a": _ONE, "b": _ONE, "kind": "sum"}], [{"a": _ONE, "kind": "sum"}]),
    (
        TREE,
        [{"name": "a", "children": []}, {"name": "a", "children": [{"name": "b", "children": []}] * 2}],
        [{"name": "a"}, {"name": "a", "children": [{}]}],
    ),
    (
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"}, LEAF]}}}},
        [[], [1, [2, []]]],
        [1, ["a"]],
    ),
    ({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, [1, 3], [2]),
    (
        {"oneOf": [{**entries(kind={"const": kind}), "required": ["kind"]} for kind in "ab"]},
        [{"kind": "a"}, {"kind": "b"}],
        [{}, {"kind": "c"}],
    ),
]


@pytest.mark.parametrize(("schema", "inside", "outside"), CASES, ids=lambda value: json.dumps(value)[:50])
def test_answers_are_what_the_schema_allows(schema: Schema | bool, inside: list[Any], outside: list[Any]) -> None:
    language, validator = build(tree_of(schema)), Draft202012Validator(schema)
    for value in inside:
        assert validator.is_valid(value), value
        assert language.accepts(json.dumps(value, ensure_ascii=False).encode()), value
    for value in outside:
        assert not language.accepts(json.dumps(value, ensure_ascii=False).encode()), value
    check(schema)


@pytest.mark.parametrize("seed", range(16))
def test_members_of_random_schemas_are_valid(seed: int) -> None:
    rng, checked = random.Random(seed), 0
    while checked < 2:
        schema = random_schema(rng, 2)
        try:
            language = build(tree_of(schema))
        except OptionError:
            continue
        if not language.empty:
            check(schema, 8, seed)
            checked += 1


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Street(BaseModel):
    name: str = Field(min_length=1, max_length=30)
    code: Annotated[str, Field(pattern=r"^\d{5}$")] = "00000"


class Person(BaseModel):
    """What pydantic makes of most types."""

    name: str
    age: int = Field(ge=0, le=150)
    height: float | None = None
    colour: Colour
    street: Street
    others: list[Street] = []
    scores: dict[str, int]
    pair: tuple[int, str]
    born: datetime.date
    seen: datetime.datetime
    key: uuid.UUID
    price: decimal.Decimal
    site: HttpUrl
    tags: set[Literal["a", "b"]] = set()
    word: Literal["x", 1, None]


def test_members_of_a_pydantic_schema_are_what_pydantic_reads() -> None:
    schema = Person.model_json_schema()
    check(schema, 20)
    for text in members(tree_of(schema), 1, 30):
        Person.model_validate_json(text)


def test_strings_are_spelled_with_all_escapes_and_whole_characters() -> None:
    language = build(tree_of({"type": "string"}))
    for text in (r'"\u00e9"', r'"\ud83d\ude00"', r'"\/\b\f\n\r\t\\\""', '"é😀\u2028"', r'"\uFFFF"'):
        assert language.accepts(text.encode())
        json.loads(text)
    for wrong in (r'"\ud83d"', r'"\ude00"', r'"\ud83d\u0041"', r'"\x"', '"\n"', r'"\u12"', '"', '"a'):
        assert not language.accepts(wrong.encode())
    assert not language.accepts(b'"\xff"')


def test_white_space_is_what_python_writes() -> None:
    language = build(tree_of({**entries(a={"type": "array", "items": {"const": 1}}), "required": ["a"]}))
    assert language.accepts(b'{"a": [1, 1]}')
    for text in (b'{"a":[1,1]}', b'{ "a": [1, 1]}', b'{"a": [1, 1]} ', b' {"a": [1, 1]}', b'{"a":  [1, 1]}'):
        assert not language.accepts(text)


def test_large_bounds_are_lowered_to_what_can_be_counted() -> None:
    many = {f"field{number}": {"type": "string", "maxLength": 65535} for number in range(20)}
    language = build(tree_of({**entries(**many), "required": ["field0"]}))
    assert language.accepts(b'{"field0": "' + b"a" * 30 + b'"}')


REFUSED: list[tuple[Any, str]] = [
    ({"contains": {}}, "'contains' at #"),
    (entries(a={"not": {"type": "null"}}), "'not' at #/properties/a"),
    ({"type": "array", "items": {"if": {}, "then": {}}}, "'if' at #/items"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "'uniqueItems' at #"),
    ({"dependentRequired": {}}, "'dependentRequired' at #"),
    ({"unevaluatedProperties": False}, "'unevaluatedProperties' at #"),
    ({"anyOf": [{"type": "null"}, {"type": "string", "format": "colour"}]}, "'format' at #/anyOf/1: 'colour'"),
    ({"maxLenght": 3}, "'maxLenght' at #: it is unknown"),
    ({"type": "string", "nullable": True}, "'nullable' at #: it is of OpenAPI"),
    ({"$dynamicRef": "#x"}, "'$dynamicRef' at #"),
    ({"$ref": "https://example.org/x"}, "leads out of the schema"),
    ({"$ref": "#/$defs/x"}, "there is no '#/$defs/x'"),
    (entries(**{"a/b~": {"contains": {}}}), "#/properties/a~1b~0"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "options 0 and 1 apart"),
    ({"type": "number", "multipleOf": 0.01}, "'multipleOf' at #"),
    ({"type": "string", "pattern": "("}, "no regular expression"),
    ({"type": "string", "pattern": r"a\b"}, r"\b"),
    ({"type": "object", "minProperties": 2}, "'minProperties' at #"),
    ({"type": "text"}, "at #/type"),
    ({"properties": {"a": 3}}, "at #/properties/a"),
    ("{}", "is no JSON schema"),
    ({"$ref": "#"}, "'$ref' at #: it leads back to itself with nothing in between"),
    ({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"$ref": "#/$defs/n"}]}}}, "'$ref' at #/$defs/n"),
    (False, "allows no value"),
    ({"enum": []}, "allows no value"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "allows no value: no integer is within the bounds (#)"),
    ({"type": "string", "minLength": 5, "maxLength": 4}, "no string is within the bounds"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "at least 3 elements and at most 2"),
    ({**entries(a={"enum": []}), "required": ["a"]}, "the required property 'a' can have no value"),
    (
        {**entries(a={}), "required": ["z"], "additionalProperties": False},
        "the required property 'z' can have no value",
    ),
    ({"type": "string", "enum": [1]}, "no value of enum or const fits"),
    ({"type": "object", "minProperties": 3, **{"properties": {"a": {}}}}, "has at least 3 properties"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "allows no value"),
    ({"const": float("inf")}, "no JSON value"),
    ({"const": "\ud800"}, "no JSON value"),
    ({"type": "string", "minLength": 100_000}, "too large"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED, ids=lambda value: json.dumps(value)[:50])
def test_what_cannot_be_held_is_refused_by_name(schema: Any, words: str) -> None:
    with pytest.raises(OptionError) as error:
        tree_of(schema)
    assert words in str(error.value)


def test_annotations_are_ignored() -> None:
    notes = {"title": "T", "description": "d", "default": 0, "examples": [1], "$comment": "c", "deprecated": True}
    more = {"$schema": "https://json-schema.org/draft/2020-12/schema", "readOnly": True, "x-own": 1, "$id": "urn:x"}
    assert build(tree_of({"const": 1, **notes, **more})).accepts(b"1")


def test_definitions_that_multiply_are_refused_before_they_are_built() -> None:
    levels = {
        str(n): {"type": "array", "prefixItems": [{"$ref": f"#/$defs/{n + 1}"}] * 2, "minItems": 2} for n in range(40)
    }
    with pytest.raises(OptionError, match="too large"):
        tree_of({"$ref": "#/$defs/0", "$defs": {**levels, "40": {"const": 1}}})


def test_a_thousand_values_are_not_too_many() -> None:
    values = [f"value number {number}" for number in range(1000)]
    language = build(tree_of({"enum": values}))
    assert all(language.accepts(json.dumps(value).encode()) for value in values)
    assert not language.accepts(b'"value number 1000"')


def test_the_page_lists_what_is_supported() -> None:
    """Every keyword and every format that is honoured or ignored, and none that is refused as if it were honoured."""
    page = (Path(__file__).parents[2] / "docs" / "structured-output.md").read_text(encoding="utf-8")
    table = " ".join(line for line in page.splitlines() if line.startswith("|"))
    named = {*re.findall(r"`([^`]+)`", table), *(f"uuid{version}" for version in range(2, 8))}
    missing = {*SUPPORTED, *ANNOTATIONS, *FORMATS, *NUMBERS} - named
    assert not missing
    assert not named & REFUSED_KEYWORDS.keys()
