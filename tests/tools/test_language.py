"""Answers that call tools, as a language: what is in it reads as calls, and what is not is refused."""

import random
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.errors import OptionError
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.language import constraint_of
from dllm_plugins.tools.reading import read
from dllm_plugins.tools.tool import Tool

INTEGER = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOLS = (Tool("f", "", INTEGER), Tool("g"))
BARE = CallFormat("", '{"name": "', '", "parameters": ', "}", "", None)
F, G = Call("f", {"x": 1}), Call("g", {})


def allows(form: CallFormat, choice: str, parallel: bool, text: str) -> bool:
    """Whether a text is in the language."""
    automaton = build(constraint_of(form, TOOLS, choice, parallel).node)
    return automaton.accepts(text.encode())


@pytest.mark.parametrize("form", [OWN, BARE], ids=["own", "bare"])
def test_calls_that_must_be(form: CallFormat) -> None:
    """Of any tool, or of the one that is named; nothing before them and nothing behind."""
    for choice, calls in (("any", [F]), ("any", [G]), ("f", [F])):
        text = form.written(calls)
        assert allows(form, choice, False, text)
        for other in (f"a{text}", f"{text}.", text[:-1], "", "yes"):
            assert not allows(form, choice, False, other)
    assert not allows(form, "f", True, form.written([G]))
    assert not allows(form, "any", True, form.written([Call("h", {})]))
    assert not allows(form, "any", True, form.written([Call("f", {"x": "1"})]))
    assert not allows(form, "any", True, form.written([Call("f", {})]))
    assert not allows(form, "any", True, form.written([Call("g", {"x": 1})]))


def test_several_calls() -> None:
    """Where they may be; a tool that is named is called once, and some templates take one call an answer."""
    text = OWN.written([F, G, F])
    assert allows(OWN, "any", True, text)
    assert allows(OWN, "auto", True, text)
    assert not allows(OWN, "any", False, text)
    assert not allows(OWN, "auto", False, text)
    assert not allows(OWN, "f", True, OWN.written([F, F]))
    assert not allows(BARE, "any", True, BARE.written([F, F]))


@pytest.mark.parametrize("form", [OWN, BARE], ids=["own", "bare"])
def test_calls_that_may_be(form: CallFormat) -> None:
    """Any text that does not begin a call, or a call in full."""
    for text in ("", "The sky.\n", " a <tool> {x}", form.written([F]), form.written([G])):
        assert allows(form, "auto", True, text)
    for text in (form.written([F])[:-1], form.written([Call("h", {})]), f"{form.before}{{"):
        assert not allows(form, "auto", True, text)


def test_text_before_a_call() -> None:
    assert allows(OWN, "auto", True, f"Let me see.\n{OWN.written([F])}")
    assert not allows(OWN, "auto", True, f"Let me see.\n{OWN.written([F])[:-3]}")
    assert not allows(OWN, "auto", True, f"{OWN.written([F])} Done.")


@pytest.mark.parametrize("form", [OWN, BARE], ids=["own", "bare"])
def test_answers_that_are_held_themselves(form: CallFormat) -> None:
    """Calls, or what a constraint allows, and nothing that would be read as the other."""
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    automaton = build(constraint_of(form, TOOLS, "auto", True, language_of(JsonSchema(schema))).node)
    for text in ('{"name": "x"}', form.written([F])):
        assert automaton.accepts(text.encode())
    for text in ("The sky.", "", f'{{"name": "x"}}{form.written([F])}', f'{{"name": "{form.marker or 1}"'):
        assert not automaton.accepts(text.encode())
    assert automaton.accepts(b'{"name": "<tool_call>"}') == (form is BARE)


def test_schemas_that_cannot_be_kept_to() -> None:
    """The error names the tool, and the keyword."""
    tool = Tool("f", "", {"type": "object", "properties": {"x": {"not": {"type": "null"}}}})
    with pytest.raises(OptionError, match=r"tool 'f': .*not"):
        constraint_of(OWN, [tool], "auto", True)


@pytest.mark.parametrize("mode", ["ar", "speculative", "diffusion", "alternating"])
@pytest.mark.parametrize("choice", ["any", "g", "auto"])
def test_random_weights_call_well(roomy: Model, mode: str, choice: str) -> None:
    """Whatever they would say: every answer reads as calls of the tools, with arguments of their schemas."""
    chance, engine = random.Random(1), roomy.engine()
    requests = []
    for number in range(4):
        config = SamplingConfig(mode=mode, max_new_tokens=160, temperature=1.0, seed=number)
        config = roomy.with_tools(config, TOOLS, choice, parallel=True)
        prompt = [{"role": "user", "content": chance.choice("abcdef") * 3}]
        requests.append(Request(roomy.encode_chat(prompt, TOOLS), config))
    for finish in engine.generate(requests):
        reply: Any = read(finish.text, OWN, ["f", "g"])
        assert not reply.malformed
        if choice != "auto":
            assert reply.calls
            assert reply.text == ""
        if choice == "g":
            assert [call.name for call in reply.calls] == ["g"]
        assert all(call.name == "g" or isinstance(call.arguments["x"], int) for call in reply.calls)


def test_options_for_tools(roomy: Model) -> None:
    """Without tools nothing changes; beside another constraint they are refused; modes that obey none are let be."""
    plain = SamplingConfig(max_new_tokens=8)
    assert roomy.with_tools(plain, ()) is plain
    constrained = roomy.with_tools(plain, TOOLS)
    with pytest.raises(OptionError, match="constraint is about answers that call nothing"):
        roomy.with_tools(constrained, TOOLS, "any")
