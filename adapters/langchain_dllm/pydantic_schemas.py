"""Schemas of pydantic classes, as narrow as the types that read the answers.

What pydantic itself writes is wider than what it reads: any text for a decimal or a complex number, http addresses for
every kind of URL, dates of any year where only past ones will do. And it asks for unlike elements of a set, which reads
like ones as well.
"""

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

_DIGITS = "(0|[1-9][0-9]{{0,{}}})"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
_DAY = "(0[1-9]|1[0-9]|2[0-8])"
_MONTH = "(0[1-9]|1[0-2])"
_COMPLEX = r"^-?[0-9]{1,9}(\.[0-9]{1,9})?[+-][0-9]{1,9}(\.[0-9]{1,9})?j$"
_HOST = r"[a-z][a-z0-9-]{0,30}[a-z0-9](\.[a-z]{2,12}){0,3}(:[1-9][0-9]{0,3})?"
#: Digits before the point where nobody says how many.
_WHOLE = 15
#: Years where only one end is told.
_FIRST_YEAR, _LAST_YEAR = 1900, 2999


class NarrowSchema(GenerateJsonSchema):
    """Of `model_json_schema`."""

    def set_schema(self, schema: core_schema.SetSchema) -> JsonSchemaValue:
        """A list, in which elements may be alike unless more than one has to be there."""
        return _repeating(super().set_schema(schema))

    def frozenset_schema(self, schema: core_schema.FrozenSetSchema) -> JsonSchemaValue:
        """See :meth:`set_schema`."""
        return _repeating(super().frozenset_schema(schema))

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A number within its bounds; where digits are counted, a text of them."""
        bounds = {name for name in ("gt", "lt", "le", "multiple_of") if schema.get(name) is not None}
        counted = schema.get("max_digits") is not None or schema.get("decimal_places") is not None
        if bounds or (not counted) or (schema.get("ge") or 0) != 0:
            kinds: list[JsonSchemaValue] = super().decimal_schema(schema)["anyOf"]
            return next(kind for kind in kinds if kind["type"] == "number")
        places = schema.get("decimal_places")
        digits = schema.get("max_digits") or _WHOLE + (places or 0)
        places = min(2, digits - 1) if places is None else places
        sign = "" if schema.get("ge") is not None else "-?"
        fraction = rf"\.[0-9]{{1,{min(places, digits)}}}"
        if digits <= places:
            # Even a 0 in front of the point alone would count.
            return {"type": "string", "pattern": f"^{sign}0{fraction}$"}
        whole, behind = _DIGITS.format(digits - places - 1), f"({fraction})?" if places else ""
        return {"type": "string", "pattern": f"^{sign}{whole}{behind}$"}

    def complex_schema(self, schema: core_schema.ComplexSchema) -> JsonSchemaValue:
        """A text such as "1+2j"."""
        return {"type": "string", "pattern": _COMPLEX}

    def date_schema(self, schema: core_schema.DateSchema) -> JsonSchemaValue:
        """Of the past, of the future or within bounds, if that is asked for."""
        years = _years(schema)
        if years is None:
            return super().date_schema(schema)
        return {"type": "string", "pattern": f"^{years}-{_MONTH}-{_DAY}$"}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """The same, without an offset from UTC where the type allows none."""
        years, zone = _years(schema), schema.get("tz_constraint")
        if years is None and zone != "naive":
            return super().datetime_schema(schema)
        offset = "" if zone == "naive" else "Z"
        return {"type": "string", "pattern": f"^{years or '[12][0-9]{3}'}-{_MONTH}-{_DAY}T{_CLOCK}{offset}$"}

    def url_schema(self, schema: core_schema.UrlSchema) -> JsonSchemaValue:
        """With one of the schemes that it has."""
        schemes = schema.get("allowed_schemes")
        if not schemes or {"http", "https"} & set(schemes):
            return super().url_schema(schema)
        host = "" if schemes == ["file"] else _HOST
        return {"type": "string", "pattern": f"^{_one_of(schemes)}://{host}(/[a-z0-9_.-]+)*$"}

    def multi_host_url_schema(self, schema: core_schema.MultiHostUrlSchema) -> JsonSchemaValue:
        """The address of a database on one host."""
        schemes = schema.get("allowed_schemes")
        if not schemes:
            return super().multi_host_url_schema(schema)
        user = "([a-z0-9_]{1,30}(:[a-zA-Z0-9_]{1,30})?@)?"
        return {"type": "string", "pattern": f"^{_one_of(schemes)}://{user}{_HOST}/[a-z0-9_]{{1,30}}$"}


def _repeating(found: JsonSchemaValue) -> JsonSchemaValue:
    if found.get("minItems", 0) <= 1:
        found.pop("uniqueItems", None)
    return found


def _one_of(schemes: Sequence[str]) -> str:
    return f"({'|'.join(map(re.escape, schemes))})"


def _years(schema: Any) -> str | None:
    """Whole years that lie within the bounds of a date, as an expression; None where it has none, or no year fits."""
    asked, now = schema.get("now_op"), date.today().year
    after = [schema[name].year for name in ("ge", "gt") if schema.get(name) is not None]
    before = [schema[name].year for name in ("le", "lt") if schema.get(name) is not None]
    after += [now] if asked == "future" else []
    before += [now] if asked == "past" else []
    first, end = max(after, default=_FIRST_YEAR - 1) + 1, min(before, default=_LAST_YEAR + 1)
    years = range(first, end) if after or before else ()
    return f"({'|'.join(f'{year:04}' for year in years)})" if years else None
