"""What OpenAI's interface calls `response_format`, as a constraint."""

from collections.abc import Mapping
from typing import Any
from typing import TypeGuard

from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown

#: Answers keep to their schema whether or not `strict` says so.
_DESCRIBED = {"name", "schema", "strict", "description"}


def constraint_of(schema: Any) -> JsonSchema:
    """A constraint, looked at before anything runs.

    :raises OptionError: for a schema that cannot be held.
    """
    found = JsonSchema(schema)
    language_of(found)
    return found


def asked_by(response_format: Any, more: str = "") -> JsonSchema | None:
    """What `response_format` asks for; None for plain text.

    :param more: what a host takes besides, for messages.
    :raises OptionError: for anything that it cannot be.
    """
    given = response_format if isinstance(response_format, Mapping) else {}
    described = given.get("json_schema")
    match given.get("type"):
        case "text" if len(given) == 1:
            return None
        case "json_object" if len(given) == 1:
            return JsonSchema({"type": "object"})
        case "json_schema" if _describes(described) and len(given) == 2:
            return constraint_of(described["schema"])
    raise OptionError(
        f"response_format={shown(response_format)}: give {{'type': 'json_object'}}, {{'type': 'json_schema', "
        f"'json_schema': {{'name': ..., 'schema': ...}}}}, {{'type': 'text'}}{more}"
    )


def _describes(described: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(described, Mapping) and "schema" in described and described.keys() <= _DESCRIBED
