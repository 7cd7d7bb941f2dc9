"""What LangChain's users say an answer must be, as a constraint of the engine."""

from collections.abc import Mapping
from typing import Any
from typing import TypeGuard

from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from dllm_plugins.constraints.response_format import asked_by
from dllm_plugins.constraints.response_format import constraint_of
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from langchain_dllm.pydantic_schemas import NarrowSchema

_FORMS = "give a pydantic class, a TypedDict class, or a dict with a JSON schema or a function's description"
#: Where a description of a function keeps its schema.
_PARAMETERS = ("parameters", "input_schema")


def is_pydantic(wanted: Any) -> TypeGuard[type[BaseModel]]:
    """Whether answers are to be objects of a pydantic class, of either version."""
    return isinstance(wanted, type) and is_basemodel_subclass(wanted)


def schema_of(wanted: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic class, a TypedDict class, a dict or a function's description.

    :raises OptionError: for anything else.
    """
    if is_pydantic(wanted):
        # Those of the first version describe themselves by another method.
        found: dict[str, Any] = (
            wanted.model_json_schema(schema_generator=NarrowSchema)
            if issubclass(wanted, BaseModel)
            else wanted.schema()
        )
        return found
    if isinstance(wanted, Mapping):
        return _schema_in(wanted)
    try:
        return convert_to_json_schema(wanted)
    except (ValueError, TypeError) as error:
        raise OptionError(f"schema={shown(wanted)} describes no answer ({error}); {_FORMS}") from error


def _schema_in(wanted: Mapping[str, Any]) -> dict[str, Any]:
    function = wanted["function"] if wanted.get("type") == "function" and "function" in wanted else wanted
    if not isinstance(function, Mapping):
        raise OptionError(f"function={shown(function)} describes none; {_FORMS}")
    if "name" in function:
        for key in _PARAMETERS:
            if key in function:
                return dict(function[key])
    return dict(wanted)


def name_of(wanted: Any) -> str:
    """What a function is called whose arguments are the answer."""
    if isinstance(wanted, Mapping):
        function = wanted["function"] if wanted.get("type") == "function" and "function" in wanted else wanted
        return str(function.get("name") or function.get("title") or "answer")
    return str(getattr(wanted, "__name__", "answer"))


def constraint_in(response_format: Any) -> JsonSchema | None:
    """What OpenAI's `response_format` asks for, or a pydantic class; None for plain text.

    :raises OptionError: for anything that it cannot be.
    """
    if is_pydantic(response_format):
        return constraint_of(schema_of(response_format))
    return asked_by(response_format, " or a pydantic class")
