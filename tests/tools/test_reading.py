"""Answers read for calls: whole, in pieces of every size, broken in every way."""

import random
from typing import Any

import pytest

from dllm_plugins.tools.calls import Began
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.calls import Malformed
from dllm_plugins.tools.calls import Piece
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.reading import CallReader
from dllm_plugins.tools.reading import Reply
from dllm_plugins.tools.reading import read
from dllm_plugins.tools.reading import reply_of

BARE = CallFormat("", '{"name": "', '", "parameters": ', "}", "", None)
LIST = CallFormat("[CALLS][", '{"name": "', '", "arguments": ', "}", "][/CALLS]", ", ")
F, G = Call("f", {"x": 1, "s": '</tool_call> {[CALLS]\n"é'}), Call("g", {})
NAMES = ("f", "g")


def in_pieces(text: str, form: CallFormat, size: int) -> Reply:
    """The same, as it arrives."""
    reader = CallReader(form, NAMES)
    parts = [part for place in range(0, len(text), size) for part in reader.push(text[place : place + size])]
    return reply_of([*parts, *reader.end()])


@pytest.mark.parametrize("form", [OWN, BARE, LIST], ids=["own", "bare", "list"])
@pytest.mark.parametrize("calls", [[F], [F, G], [G, G, F]], ids=len)
def test_what_is_written_is_read(form: CallFormat, calls: list[Call]) -> None:
    """However it arrives, whatever texts the arguments hold."""
    for size in (1, 2, 3, 7, 1000):
        assert in_pieces(form.written(calls), form, size) == Reply("", tuple(calls))


@pytest.mark.parametrize("form", [OWN, LIST], ids=["own", "list"])
def test_text_around_calls(form: CallFormat) -> None:
    """It stays, without the white space beside calls."""
    text = f" \n Let me see:\n\n{form.written([F])}\n and \n{form.written([G])} \n"
    for size in (1, 4, 1000):
        assert in_pieces(text, form, size) == Reply(" \n Let me see:and", (F, G))


@pytest.mark.parametrize("text", ["", " a < b\n\n", "<tool", "<tool_cal> [CALL", '[1, 2] {"a": 1}', "\n"])
@pytest.mark.parametrize("form", [OWN, BARE, LIST], ids=["own", "bare", "list"])
def test_text_without_calls_is_untouched(form: CallFormat, text: str) -> None:
    for size in (1, 3, 1000):
        assert in_pieces(text, form, size) == Reply(text)


def test_text_is_given_at_once() -> None:
    """But for what may be the beginning of a call, and white space that may stand beside one."""
    reader = CallReader(OWN, NAMES)
    assert reader.push("The <tool") == ["The"]
    assert reader.push("box> is") == [" <toolbox> is"]
    assert reader.push(" ") == []
    assert reader.push('<tool_call>{"name": "g", ') == []
    assert reader.push('"arguments": {}}') == [Began("g"), Piece("{}"), G]
    assert reader.push("</tool_call>") == []
    assert reader.end() == []


@pytest.mark.parametrize(
    "text", ['{"a": 1}', ' {"name": "f"}', '{"name": 1, "parameters": {}}', "{x", '{"a": [1, 2', "{}  x"]
)
def test_objects_that_are_no_calls(text: str) -> None:
    """Where calls have no mark, an answer in JSON is an answer."""
    for size in (1, 1000):
        assert in_pieces(text, BARE, size).text.strip() == text.strip()
        assert in_pieces(text, BARE, size).calls == ()


@pytest.mark.parametrize(
    ("written", "name", "error"),
    [
        ('{"name": "f", "arguments": {"x": 1', "f", "it is no JSON: "),
        ('{"name": "f", "arguments": {"x": 1}', "f", "it is no JSON: "),
        (
            '{"name": "f", "arguments": {}, "arguments": {"x": 1}}</tool_call>',
            "f",
            "it has 'name' or 'arguments' twice",
        ),
        ('{"name": "f", "arguments": {}, "name": "g"}</tool_call>', "f", "it has 'name' or 'arguments' twice"),
        ("{'name': 'f'}</tool_call>", None, "it is no JSON: "),
        ('{"name": "f", "arguments": {"x": NaN}}</tool_call>', "f", "it is no JSON: NaN"),
        ("", None, "it is no JSON: "),
        ('{"arguments": {}}</tool_call>', None, "it has no 'name'"),
        ('["f"]</tool_call>', None, "it has no 'name'"),
        ('{"name": "h", "arguments": {}}</tool_call>', "h", "there is no tool 'h'; the tools are: f, g"),
        ('{"name": "f", "arguments": [1]}</tool_call>', "f", "its 'arguments' are no object"),
        ('{"name": "f", "arguments": "x"}</tool_call>', "f", "its 'arguments' are no object"),
        ('{"name": "f", "arguments": ' + "[" * 100_000, None, "it is no JSON: "),
    ],
)
def test_what_is_no_call(written: str, name: str | None, error: str) -> None:
    """It is told apart with what is wrong, and what stands behind it is read as ever."""
    for size in (50, 10**6):
        reply = in_pieces(f"a <tool_call>{written}", OWN, size)
        assert (reply.text, reply.calls) == ("a", ())
        [found] = reply.malformed
        assert isinstance(found, Malformed)
        assert found.name == name
        assert found.error.startswith(error)
        assert found.text == f"<tool_call>{written}"
    if written.endswith("</tool_call>"):
        more = read(f"<tool_call>{written} then <tool_call>{OWN.opening}g{OWN.middle}{{}}}}", OWN, NAMES)
        assert (more.text, more.calls) == ("then", (G,))


@pytest.mark.parametrize("form", [OWN, BARE, LIST], ids=["own", "bare", "list"])
def test_arguments_in_pieces(form: CallFormat) -> None:
    """The name first, then the arguments as they come, then the call; or, wherever it is cut, that it is none."""
    call = Call("f", {"x": 'a "}]{ \\', "y": [{"z": [1, {}]}]})
    text, arguments = form.written([call]), call.written()
    begin = text.index(arguments)
    for cut in (*range(begin + 1, begin + len(arguments)), len(text)):
        reader = CallReader(form, NAMES)
        parts = [part for letter in text[:cut] for part in reader.push(letter)] + reader.end()
        first, *pieces, last = parts
        assert first == Began("f")
        assert [piece.text for piece in pieces if isinstance(piece, Piece)] == list(text[begin:cut][: len(arguments)])
        assert last == call if cut == len(text) else isinstance(last, Malformed)


def test_names_that_no_tool_has() -> None:
    """Nothing of such a call is told before it is whole."""
    reader = CallReader(OWN, NAMES)
    assert reader.push('<tool_call>{"name": "h", "arguments": {"x": 1, ') == []
    [found] = reader.push('"y": 2}}')
    assert isinstance(found, Malformed)
    assert CallReader(OWN, None).push('<tool_call>{"name": "h", "arguments": {"x"') == [Began("h"), Piece('{"x"')]


def test_liberties_of_models() -> None:
    """Other white space, arguments as a text or left out, marks that are not closed."""
    for text in (
        '<tool_call>\n\n{ "name":"g" ,"arguments": "{}" }\n\n</tool_call>',
        '<tool_call>{"arguments":{},"name":"g"}',
        '<tool_call>{"name": "g"}',
        '<tool_call>{"name": "g", "arguments": {}} ',
    ):
        assert read(text, OWN, NAMES) == Reply("", (G,))
    assert read('{"name": "g", "parameters": {}}; {"name": "g", "parameters": {}}', BARE, NAMES).calls == (G,)


def test_any_text_at_all() -> None:
    """Nothing raises, nothing is lost that is no call, and pieces read as the whole does."""
    chance = random.Random(3)
    bits = [
        "<tool_call>",
        "</tool_call>",
        '{"name": "f"',
        '"arguments": {',
        "}",
        "}",
        '"',
        ", ",
        "x",
        "\n",
        "[",
        "é",
        "<",
    ]
    for _ in range(1500):
        text = "".join(chance.choice(bits) for _ in range(chance.randint(0, 14)))
        whole: Any = read(text, OWN, NAMES)
        assert in_pieces(text, OWN, chance.randint(1, 5)) == whole
        if "<tool_call>" not in text:
            assert whole == Reply(text)
