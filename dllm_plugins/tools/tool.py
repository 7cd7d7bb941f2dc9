"""A function that a model may call, and which of them it must call."""

import re
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown

#: As other interfaces have it; whatever else would have to be escaped where a call is written.
NAME = r"[A-Za-z0-9_.-]{1,128}"
_EXAMPLE = '{"type": "function", "function": {"name": ..., "description": ..., "parameters": {...}}}'
#: Whether and what to call: as the model likes, at least one, none; or the name of a tool, which is called.
AUTO, ANY, NONE = "auto", "any", "none"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call.

    :param parameters: a JSON schema of an object, its arguments by their names.
    :raises OptionError: for a name that is none, and parameters that are no schema of an object.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise OptionError(f"tool name {shown(self.name)}: use letters, digits, '_', '-' and '.', 128 at most")
        if not isinstance(self.parameters, Mapping) or self.parameters.get("type", "object") != "object":
            raise OptionError(
                f"parameters={shown(self.parameters)} of tool {self.name!r}: give a JSON schema of type object"
            )

    def as_function(self) -> dict[str, Any]:
        """As chat templates take it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


def tools_of(given: Sequence[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Tools as hosts give them: each a function of OpenAI's form.

    :raises OptionError: for anything else, and for different ones of the same name.
    """
    found: dict[str, Tool] = {}
    for item in given:
        function = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or "name" not in function:
            raise OptionError(f"tool {shown(item)} is no function; give {_EXAMPLE}")
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        tool = Tool(function["name"], function.get("description") or "", schema)
        if tool.name in found and _untitled(found[tool.name].parameters) != _untitled(schema):
            raise OptionError(f"there are two tools of the name {tool.name!r}; rename one of them")
        found[tool.name] = tool
    return tuple(found.values())


def _untitled(schema: Any) -> Any:
    """A schema without titles, which some libraries write and others do not."""
    if isinstance(schema, Mapping):
        return {name: _untitled(item) for name, item in schema.items() if name != "title" or not isinstance(item, str)}
    return [_untitled(item) for item in schema] if isinstance(schema, list | tuple) else schema


def choice_of(given: Any, tools: Sequence[Tool]) -> str:
    """What hosts call `tool_choice`: :data:`AUTO`, :data:`ANY`, :data:`NONE`, or a tool's name.

    :param given: also True and "required" for any, None for auto, and a mapping that names a function.
    :raises OptionError: for a name that no tool has, and for a choice without tools.
    """
    if given is None or given is False:
        return AUTO
    choice = given
    if isinstance(given, Mapping):
        function = given.get("function")
        named = function.get("name") if isinstance(function, Mapping) else given.get("name")
        choice = given.get("type") if named is None else named
    choice = ANY if choice is True or choice == "required" else choice
    names = [tool.name for tool in tools]
    if not isinstance(choice, str) or choice not in (AUTO, ANY, NONE, *names):
        raise OptionError(
            f"tool_choice={shown(given)}: use 'auto', 'any', 'none' or the name of a tool: {', '.join(names) or 'none'}"
        )
    if choice == ANY and not names:
        raise OptionError(f"tool_choice={shown(given)} asks for a call, and there are no tools; bind some")
    return choice
