"""Answers that call tools as a regular language: each call in full, its arguments as the tool's schema has them."""

import re
from collections.abc import Sequence

from dllm_plugins.constraints.json_schema import tree_of
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.nodes import optional
from dllm_plugins.constraints.values import Tree
from dllm_plugins.errors import OptionError
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.tool import ANY
from dllm_plugins.tools.tool import AUTO
from dllm_plugins.tools.tool import Tool

_TEXT = Pattern("(?s).*")


def constraint_of(
    form: CallFormat, tools: Sequence[Tool], choice: str, parallel: bool, answer: Node | None = None
) -> Tree:
    """What an answer may be.

    :param choice: "auto": a text, and behind it calls, if there are any; "any": calls; a tool's name: one call of it.
    :param parallel: whether there may be several calls.
    :param answer: what an answer is that calls nothing, if that is not any text; then it is one or the other.
    :raises OptionError: for a schema of a tool that cannot be kept to.
    """
    if choice not in (AUTO, ANY):
        return Tree(_calls(form, [tool for tool in tools if tool.name == choice], parallel=False), "tool_choice")
    calls = _calls(form, tools, parallel)
    if choice == ANY:
        return Tree(calls, "tool_choice")
    if answer is None:
        return Tree(_free(form, calls), "tools")
    return Tree(Choice((Without(answer, _marked(form)), calls)))


def answer_of(form: CallFormat, never: str, answer: Node | None = None) -> Tree:
    """What an answer is that calls nothing: some text in which nothing looks like a call.

    :param never: another text that none holds. What it has in common with the mark of a call is not in it either,
        because a text that begins so could only go on as a call.
    :param answer: what an answer is, if that is not any text.
    """
    if answer is not None:
        return Tree(Without(answer, _marked(form)))
    common = next((n for n, pair in enumerate(zip(form.marker, never, strict=False)) if pair[0] != pair[1]), 0)
    # Without signs such as "_" at its end, which would invite another one in their place.
    common = len(re.sub(r"[\W_]+$", "", never[:common]))
    marks = [never[:common]] if common else [form.marker, never]
    held = Choice(tuple(Pattern(f"(?s).*{re.escape(mark)}.*") for mark in marks))
    return Tree(Without(Pattern(r"(?s)\s*\S.*"), held))


def _calls(form: CallFormat, tools: Sequence[Tool], parallel: bool) -> Node:
    one = Choice(tuple(_call(form, tool) for tool in tools))
    more = () if form.between is None or not parallel else (Repeat(Concat((_literal(form.between), one))),)
    return Concat((_literal(form.before), one, *more, _literal(form.after)))


def _call(form: CallFormat, tool: Tool) -> Node:
    try:
        # A call has the arguments that there are; what else a schema might let through nobody takes.
        arguments = tree_of({"type": "object", "additionalProperties": False, **tool.parameters})
    except OptionError as error:
        raise OptionError(f"tool {tool.name!r}: {error}") from error
    return Concat((_literal(f"{form.opening}{tool.name}{form.middle}"), arguments, _literal(form.closing)))


def _free(form: CallFormat, calls: Node) -> Node:
    """Text in which nothing looks like a call, and calls behind it; without a mark, either of the two."""
    if not form.marker:
        return Choice((Without(_TEXT, Pattern(r"(?s)\s*\{.*")), calls))
    return Concat((Without(_TEXT, _marked(form)), optional(calls)))


def _marked(form: CallFormat) -> Node:
    """What would be read as a call, or as the beginning of one."""
    if form.marker:
        return Pattern(f"(?s).*{re.escape(form.marker)}.*")
    name, arguments = (rf'(?s)\s*\{{.*"{re.escape(key)}"\s*:.*' for key in form.keys)
    return Both(Pattern(name), Pattern(arguments))


def _literal(text: str) -> Node:
    return Literal(text.encode())
