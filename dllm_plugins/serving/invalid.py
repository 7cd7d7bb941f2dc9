"""What is said of a body that is not what its endpoint takes."""

import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from pydantic import BaseModel
from pydantic import ValidationError

from dllm_plugins.messages import shown
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.fields import unknown_field

#: Parts of a place in a request that name a kind of value, and no field.
_KIND = re.compile(r"(str|int|bool|float|list|dict|literal)\b.*|[A-Z]\w*")
Shape = TypeVar("Shape", bound=BaseModel)


def read(shape: type[Shape], body: Mapping[str, Any]) -> Shape:
    """A body as an endpoint takes it.

    :raises ApiError: naming the field that is wrong.
    """
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise invalid([{**found, "loc": ("body", *found["loc"])} for found in error.errors()]) from error


def invalid(errors: Sequence[Any]) -> ApiError:
    """The first thing that is wrong with a body.

    :param errors: as FastAPI tells them, whose places begin with what the body is called.
    """
    first: dict[str, Any] = dict(errors[0])
    place = _place(first)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    if not place:
        told_of = str(first.get("ctx", {}).get("error", first["msg"]))
        if first["type"] != "value_error":
            told_of = "send a JSON object, with the header Content-Type: application/json"
        return ApiError(400, told_of)
    param = ".".join(place)
    if first["type"] == "extra_forbidden":
        unknown = unknown_field(param) if len(place) == 1 else f"there is no field {param!r} here; leave it out"
        return ApiError(400, unknown, param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing", param=param, code="missing_required_parameter")
    reason = first.get("ctx", {}).get("error", first["msg"])
    return ApiError(400, f"{param}={shown(first['input'])}: {reason}", param=param)


def _place(first: Mapping[str, Any]) -> list[str]:
    """Where it is: fields and numbers, without the kinds of values that were tried on the way."""
    parts = [str(part) for part in first["loc"][1:]]
    unknown = parts.pop() if parts and first["type"] == "extra_forbidden" else None
    found = [part for part in parts if not _KIND.fullmatch(part)]
    return found if unknown is None else [*found, unknown]
