"""Finished answers are looked at once more."""

import pytest

from dllm_plugins.constraints.validation import check_answer
from dllm_plugins.constraints.validation import validated
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import AnswerError

AGE = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}


def test_a_valid_answer_becomes_its_value() -> None:
    assert validated('{"age": 3}', AGE) == {"age": 3}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"age": -3}', "at #/age: -3 is less than the minimum of 0"),
        ("{}", "at #: 'age' is a required property"),
        ('{"age": 3', "is no JSON"),
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
    ],
)
def test_an_answer_that_is_not_valid_is_an_error_that_says_why(answer: str, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        validated(answer, AGE)


def test_formats_count() -> None:
    with pytest.raises(AnswerError, match="is not a 'date'"):
        validated('"2023-02-29"', {"type": "string", "format": "date"})


def test_an_answer_that_a_stop_string_has_cut_is_not_called_wrong() -> None:
    check_answer('{"age": ', JsonSchema(AGE), "stop")
    check_answer("anything", Regex("x"), "eos")
    check_answer("anything", None, "eos")
    for reason in ("eos", "length", "context"):
        with pytest.raises(AnswerError):
            check_answer('{"age": ', JsonSchema(AGE), reason)
