"""Requests, events and errors as lines of JSON, and back, each exactly as it was.

An object of a class of ours names it under `$`. Of what stands in such an object a list is a tuple; elsewhere it is a
list. What does not come back equal is not sent.
"""

import json
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
from typing import Any

from dllm_plugins import errors
from dllm_plugins.asked import Chat
from dllm_plugins.asked import Gaps
from dllm_plugins.asked import Text
from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import DllmError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Filled
from dllm_plugins.events import Finish
from dllm_plugins.events import GapDraft
from dllm_plugins.events import Repair
from dllm_plugins.events import Repairs
from dllm_plugins.events import Stretch
from dllm_plugins.events import TokenLogprob
from dllm_plugins.events import Usage
from dllm_plugins.messages import Given
from dllm_plugins.messages import Message
from dllm_plugins.messages import Option
from dllm_plugins.messages import shown
from dllm_plugins.request import Request
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.tool import Tool

_PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True, slots=True, repr=False)
class Spelled:
    """A value of a message that is no JSON: as it reads, plainly and by `repr`."""

    text: str
    spelled: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.spelled


_ASKED = (Chat, Text, Gaps, Tool, Gap, Regex, JsonSchema, Grammar)
_TOLD = (Commit, Draft, Finish, Usage, Stretch, TokenLogprob, GapDraft, Filled, CallFormat, Repair, Repairs)
_CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in (*_ASKED, *_TOLD, Message, Given, Spelled)}


def line(value: Any) -> bytes:
    """A value as a line; ASCII, so that halves of surrogate pairs arrive, too."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def packed(value: Any) -> Any:
    """A value as JSON.

    :raises TypeError: for what is none of ours.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple):
        return [packed(item) for item in value]
    if kind is dict and all(isinstance(key, str) for key in value):
        found = {key: packed(item) for key, item in value.items()}
        return {"$": "dict", "of": found} if "$" in found else found
    if kind in _PARTS:
        return {"$": kind.__name__} | {name: packed(part) for name, part in _PARTS[kind](value).items()}
    if _CLASSES.get(kind.__name__) is kind:
        return {"$": kind.__name__} | {field.name: packed(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{shown(value)} cannot be sent to another process")


def unpacked(found: Any) -> Any:
    """What :func:`packed` has made JSON of.

    :raises KeyError: for a class that is none of ours.
    :raises TypeError: for fields that it has not.
    """
    if isinstance(found, list):
        return [unpacked(item) for item in found]
    if not isinstance(found, dict):
        return found
    if found.get("$") == "dict":
        # Its own key of that name is none of ours.
        return {key: unpacked(item) for key, item in found["of"].items()}
    parts = {key: unpacked(item) for key, item in found.items() if key != "$"}
    if "$" not in found:
        return parts
    return _MADE[found["$"]](**{key: _frozen(part) for key, part in parts.items()})


def _told(value: Any) -> Any:
    """A value of a message: what is put together here already is not taken apart."""
    return value if type(value) in (*_PLAIN, Option, Message, Given, Spelled) else Spelled(str(value), repr(value))


#: What is sent of objects that are made by other names than those of their fields.
_PARTS: dict[type[Any], Callable[[Any], dict[str, Any]]] = {
    Message: lambda value: {"template": value.template, "values": [_told(item) for item in value.values]},
    Option: lambda value: {"object": str(value)},
    SamplingConfig: lambda value: {"given": value.given()},
    Template: lambda value: {"parts": value.parts, "chat": value.chat},
}
#: Makes each of them again.
_MADE: dict[str, Callable[..., Any]] = _CLASSES | {
    "Option": Option,
    "SamplingConfig": lambda given: SamplingConfig(**given),
    "Template": lambda parts, chat: Template(*parts, chat=chat),
}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def packed_request(request: Request) -> Any:
    """A request as JSON; None if another process cannot be asked the same.

    That is so of tokens, callables and objects of others: only what hosts ask by words can be sent.
    """
    if request.asked is None or besides(request):
        return None
    try:
        found = {"asked": packed(request.asked), "config": packed(request.config)}
        again = unpacked_request(json.loads(line(found)))
    except (TypeError, ValueError, RecursionError):
        return None
    same = again.asked == request.asked and again.config.given() == request.config.given()
    return found if same else None


def unpacked_request(found: Mapping[str, Any]) -> Request:
    """The request again."""
    return Request((), unpacked(found["config"]), asked=unpacked(found["asked"]))


def besides(request: Request) -> dict[str, Any]:
    """What a request says besides what was asked and the options of decoding, by the names of its fields."""
    default = Request((), request.config, asked=request.asked)
    changed = {field.name: getattr(request, field.name) for field in fields(Request)}
    return {name: value for name, value in changed.items() if not _same(value, getattr(default, name))}


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def packed_error(error: DllmError) -> dict[str, Any]:
    """An error as JSON: its class, or what that is made of, and its message in its parts."""
    names = (kind.__name__ for kind in type(error).__mro__ if getattr(errors, kind.__name__, None) is kind)
    try:
        detail = packed(error.detail)
    except TypeError:
        detail = packed(Message("{}", (str(error),)))
    return {"class": next(names), "detail": detail}


def unpacked_error(found: Mapping[str, Any]) -> DllmError:
    """The error again, for whoever has asked.

    :raises AttributeError: for a class that is none of ours, and KeyError or TypeError for what is no error.
    """
    made = getattr(errors, found["class"])(unpacked(found["detail"]))
    if not isinstance(made, DllmError):
        raise TypeError(f"{shown(found)} is no error")
    return made
