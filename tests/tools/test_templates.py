"""What chat templates do with tools is found out from what they write."""

from typing import Any

import pytest

from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.format import found_in
from dllm_plugins.tools.reading import Reply
from dllm_plugins.tools.reading import read
from dllm_plugins.tools.templates import habit_of

from .templates import HERMES
from .templates import NATIVE
from .templates import OTHERS

CALLS = (Call("f", {"x": 1}), Call("g", {}))


@pytest.mark.parametrize("name", NATIVE)
def test_a_templates_own_format(name: str) -> None:
    """Calls are read and written as its model was shown them."""
    habit = habit_of(NATIVE[name].source, {"bos_token": "<s>"}, name)
    assert habit.native
    assert read(NATIVE[name].calls, habit.form, ["f", "g"]) == Reply("", CALLS)
    assert habit.form.written(CALLS) == NATIVE[name].calls


def test_keys_and_marks() -> None:
    """As the templates have them."""
    forms = {name: habit_of(written.source, {}, name).form for name, written in NATIVE.items()}
    assert {name: form.keys for name, form in forms.items()} == {
        "hermes": ("name", "arguments"),
        "llama": ("name", "parameters"),
        "listed": ("name", "arguments"),
    }
    assert {name: form.marker for name, form in forms.items()} == {
        "hermes": "<tool_call>",
        "llama": "",
        "listed": "[CALLS][",
    }
    assert {name: form.between is None for name, form in forms.items()} == {
        "hermes": False,
        "llama": True,
        "listed": False,
    }


@pytest.mark.parametrize("name", OTHERS)
def test_templates_without_a_format_that_can_be_read(name: str) -> None:
    """Ours is used: where a template is silent, refuses tools, or writes calls that are no JSON."""
    habit = habit_of(OTHERS[name], {}, name)
    assert (habit.form, habit.native) == (OWN, False)


def test_a_template_that_shows_no_results() -> None:
    """It could not go on after a call."""
    source = HERMES.replace("{{ m.content }}\n</tool_response>", "</tool_response>")
    assert source != HERMES
    assert not habit_of(source, {}, "hermes").native


@pytest.mark.parametrize(
    "one",
    [
        "",
        "f(x=1)",
        '{"name": "f"}',
        '{"name": "g", "arguments": {"x": 1}}',
        '{"arguments": {"x": 1}, "name": "f"}',
        '{"id": 1, "name": "f", "arguments": {"x": 1}}',
        '{"f": {"x": 1}}',
        "{" * 50,
    ],
)
def test_texts_in_which_no_call_is_found(one: str) -> None:
    assert found_in(one, None, "f", '{"x": 1}') is None


def test_a_call_is_found_among_braces() -> None:
    form: Any = found_in('{{ {x} <{"name": "f", "arguments": {"x": 1}}>', None, "f", '{"x": 1}')
    assert (form.before, form.after, form.between) == ("{{ {x} <", ">", None)
