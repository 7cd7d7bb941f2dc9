"""Tools and choices as hosts give them."""

import re
from typing import Any

import pytest

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from dllm_plugins.tools.tool import Tool
from dllm_plugins.tools.tool import choice_of
from dllm_plugins.tools.tool import tools_of

FUNCTION = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
TOOLS = (Tool("f"), Tool("g.h-2"))


def test_functions_are_tools() -> None:
    found = tools_of([FUNCTION, {"type": "function", "function": {"name": "g"}}])
    assert found == (Tool("f", "d", {"type": "object"}), Tool("g"))
    assert found[0].as_function() == FUNCTION


def test_the_same_tool_twice_is_one() -> None:
    """Also where only one of them has titles."""
    titled = {"type": "object", "title": "F", "properties": {"title": {"type": "string", "title": "Title"}}}
    plain = {"type": "object", "properties": {"title": {"type": "string"}}}
    functions = [{"function": {"name": "f", "parameters": schema}} for schema in (titled, plain)]
    assert len(tools_of(functions)) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([7], "tool 7 is no function"),
        ([{"type": "web_search"}], "web_search.* is no function; give"),
        (
            [FUNCTION, {"function": {"name": "f", "parameters": {"type": "object", "required": ["x"]}}}],
            "two tools of the name 'f'",
        ),
        ([{"function": {"name": "a b"}}], "tool name 'a b': use letters"),
        ([{"function": {"name": ""}}], "tool name '': use letters"),
        (
            [{"function": {"name": "f", "parameters": {"type": "string"}}}],
            "of tool 'f': give a JSON schema of type obj",
        ),
    ],
)
def test_what_is_no_tool(given: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        tools_of(given)


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, "auto"),
        ("auto", "auto"),
        (False, "auto"),
        ("any", "any"),
        (True, "any"),
        ("required", "any"),
        ("none", "none"),
        ("g.h-2", "g.h-2"),
        ({"type": "function", "function": {"name": "f"}}, "f"),
        ({"type": "tool", "name": "f"}, "f"),
        ({"type": "any"}, "any"),
    ],
)
def test_choices(given: Any, choice: str) -> None:
    assert choice_of(given, TOOLS) == choice


@pytest.mark.parametrize("given", ["h", {"type": "function", "function": {"name": "h"}}, 3, {}])
def test_choices_that_there_are_not(given: Any) -> None:
    told = rf"{re.escape(f'tool_choice={shown(given)}')}.*the name of a tool: f, g\.h-2"
    with pytest.raises(OptionError, match=told):
        choice_of(given, TOOLS)


def test_a_call_without_tools() -> None:
    assert choice_of(None, ()) == "auto"
    with pytest.raises(OptionError, match="asks for a call, and there are no tools"):
        choice_of("any", ())
