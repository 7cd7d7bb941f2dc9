"""What a chat template does with tools, found out by rendering short chats."""

import json
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dllm_plugins.errors import RequestError
from dllm_plugins.text.templates import render
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.format import OWN
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.format import found_in
from dllm_plugins.tools.tool import Tool

#: Words that no template holds.
_NAME, _KEY, _VALUE, _SAID, _RESULT = "qzname", "qzkey", "qzvalue", "qzsaid", "qzresult"
_SCHEMA = {"type": "object", "properties": {_KEY: {"type": "string", "description": "a text"}}, "required": [_KEY]}
_TOOL = Tool(_NAME, "a tool", _SCHEMA)
_ARGUMENTS = {_KEY: _VALUE}
_BEFORE, _BEHIND = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}


@dataclass(frozen=True, slots=True)
class ToolHabit:
    """How a model's chats tell of tools.

    :param form: how calls are written.
    :param native: the template writes tools, calls and results itself; else texts of ours say it.
    :param system: the template takes system prompts.
    """

    form: CallFormat
    native: bool
    system: bool = True


def habit_of(source: str, variables: Mapping[str, Any], name: str) -> ToolHabit:
    """What a template does.

    :param source: the template.
    :param variables: the special tokens by their names.
    :param name: of the model, for messages.
    """
    return _habit(source, tuple(sorted((key, str(value)) for key, value in variables.items())), name)


@lru_cache(maxsize=64)
def _habit(source: str, variables: tuple[tuple[str, str], ...], name: str) -> ToolHabit:
    def shown(*messages: Mapping[str, Any]) -> str:
        return render(source, messages, dict(variables), name, [_TOOL.as_function()])

    try:
        form = _form(shown)
    except RequestError:
        # It does not take tools, or calls, or results.
        form = None
    if form is not None:
        return ToolHabit(form, native=True)
    try:
        system = _SAID in shown({"role": "system", "content": _SAID}, _BEFORE)
    except RequestError:
        system = False
    return ToolHabit(OWN, native=False, system=system)


def calling(calls: Sequence[Call], content: str = "", ids: Sequence[str] = ()) -> dict[str, Any]:
    """An assistant's message that calls, as templates take it.

    :param ids: of the calls, in their order; numbers if there are none.
    """
    ids = ids or [f"call{number}" for number in range(len(calls))]
    written = [
        {"type": "function", "id": number, "function": {"name": call.name, "arguments": dict(call.arguments)}}
        for number, call in zip(ids, calls, strict=True)
    ]
    return {"role": "assistant", "content": content, "tool_calls": written}


def _form(shown: Any) -> CallFormat | None:
    """How it writes calls; None if it is silent about tools, or writes no objects of JSON."""
    call, result = Call(_NAME, _ARGUMENTS), {"role": "tool", "name": _NAME, "content": _RESULT}
    before, _, behind = shown(_BEFORE, {"role": "assistant", "content": _SAID}, _BEHIND).partition(_SAID)
    if _NAME not in before or _KEY not in before:
        return None
    single = shown(_BEFORE, calling([call]), _BEHIND)
    if _RESULT not in shown(_BEFORE, calling([call]), result | {"tool_call_id": "call0"}, _BEHIND):
        return None
    one = _inside(single, before, behind)
    if one is None:
        return None
    try:
        two = _inside(shown(_BEFORE, calling([call, call]), _BEHIND), before, behind)
    except RequestError:
        # Some take a single call an answer.
        two = None
    return found_in(one, two, _NAME, json.dumps(_ARGUMENTS))


def _inside(text: str, before: str, behind: str) -> str | None:
    """What stands between; white space in front of it may be another one."""
    opening = before.rstrip()
    if not text.startswith(opening) or not text.endswith(behind):
        return None
    return text[len(opening) : len(text) - len(behind)].strip()
