"""Calls in pieces: whole ones, ones that were cut, and what is none."""

import json
from collections.abc import Sequence

import pytest

from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.pieces import CallPiece
from dllm_plugins.tools.pieces import CallPieces
from dllm_plugins.tools.reading import CallReader

CALL = '<tool_call>{"name": "f", "arguments": {"a": [1, "}"], "b": {"c": "x\\""}}}</tool_call>'
WRITTEN = '{"a": [1, "}"], "b": {"c": "x\\""}}'


def told(text: str, size: int, names: Sequence[str] = ("f", "g")) -> list[str | CallPiece]:
    """What an answer tells that comes in parts of so many letters."""
    reader, pieces = CallReader(OWN, names), CallPieces()
    found = [
        part for begin in range(0, len(text), size) for part in pieces.told(reader.push(text[begin : begin + size]))
    ]
    return found + pieces.told(reader.end())


def arguments(found: Sequence[str | CallPiece], number: int = 0) -> str:
    """Of one call."""
    return "".join(part.arguments for part in found if isinstance(part, CallPiece) and part.number == number)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls(size: int) -> None:
    """Each has its name first, and ends once."""
    found = told(f"so\n{CALL}\n{CALL.replace('f', 'g', 1)}", size)
    calls = [part for part in found if isinstance(part, CallPiece)]
    assert "".join(part for part in found if isinstance(part, str)) == "so"
    assert [(part.number, part.name) for part in calls if part.name] == [(0, "f"), (1, "g")]
    assert [(part.number, part.whole) for part in calls if part.whole is not None] == [(0, True), (1, True)]
    assert arguments(found) == arguments(found, 1) == WRITTEN


@pytest.mark.parametrize("length", range(CALL.index("{", 15) + 1, CALL.index("</")))
def test_one_that_is_cut(length: int) -> None:
    """Wherever that is, it is no whole call, and its arguments are not to be completed."""
    found = told(CALL[:length], 2)
    last = found[-1]
    assert isinstance(last, CallPiece)
    assert last.whole is False
    with pytest.raises(ValueError, match=r"Expecting|Extra|Unterminated|Invalid|delimiter"):
        json.loads(arguments(found))


def test_what_is_none() -> None:
    """A tool that there is not, and an object of another kind, are text."""
    for text in (CALL, '<tool_call>{"a": 1}</tool_call>'):
        assert told(text, 4, names=("g",)) == [text]


def test_arguments_as_a_text() -> None:
    """Some models quote them; such a call is told at once."""
    text = '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>'
    assert told(text, 4) == [CallPiece(0, "f", '{"a": 1}', whole=True)]
