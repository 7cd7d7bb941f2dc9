"""The keywords of JSON schema, one by one: what each says, or why it is refused."""

from collections.abc import Callable
from collections.abc import Mapping
from decimal import Decimal
from functools import reduce
from math import isfinite
from typing import Any

from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.facts import Elements
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.facts import Members
from dllm_plugins.constraints.schemas.facts import meet
from dllm_plugins.constraints.schemas.facts import with_integers
from dllm_plugins.constraints.schemas.formats import FORMATS
from dllm_plugins.constraints.schemas.formats import NUMBERS
from dllm_plugins.constraints.schemas.numbers import Bound

#: Keywords that say nothing of which values are valid.
ANNOTATIONS = frozenset(
    {"title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly"}
    | {"$schema", "$id", "$comment", "$defs", "definitions", "discriminator"}
)
#: Keywords that say how other parts of the schema hold here.
APPLIED = frozenset({"$ref", "allOf", "anyOf", "oneOf"})
_LEAVE = "leave it out, or check it yourself in finished answers"
#: Keywords that are not supported, and what to do instead.
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("contains", "minContains", "maxContains"), f"what some element must be is not supported; {_LEAVE}"
    ),
    **dict.fromkeys(("if", "then", "else"), "conditions are not supported; write the cases as anyOf"),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), "write the cases as anyOf"),
    **dict.fromkeys(
        ("unevaluatedProperties", "unevaluatedItems"),
        "leave it out: objects and arrays hold nothing that is not described anyway",
    ),
    **dict.fromkeys(
        ("contentEncoding", "contentMediaType", "contentSchema"),
        "what a string encodes is not checked; leave it out, or describe the string by pattern",
    ),
    **dict.fromkeys(
        ("$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary"),
        "only $ref with a JSON pointer into the schema is supported, such as #/$defs/NAME; use that",
    ),
    "not": "what a value must not be is not supported; describe what it may be, for example by enum or pattern",
    "additionalItems": "it is of older drafts; use prefixItems and items",
    "nullable": 'it is of OpenAPI; write "type": ["string", "null"], or anyOf with {"type": "null"}',
}


def facts_of(part: At) -> Facts:
    """What the keywords of a part say by themselves, without what they refer to.

    :raises OptionError: for a keyword that is not supported.
    """
    schema = part.schema
    for keyword, value in schema.items():
        _check(part, keyword, value)
    found = [Facts(parts=(part,))]
    found += [_SAYING[keyword](part, value) for keyword, value in schema.items() if keyword in _SAYING]
    if schema.keys() & {"properties", "patternProperties", "additionalProperties"}:
        found.append(Facts(spoken=frozenset({"object"}), members=(_members(part),)))
    if schema.keys() & {"prefixItems", "items"}:
        first = tuple(part.under("prefixItems", number) for number in range(len(schema.get("prefixItems", ()))))
        rest = part.under("items") if "items" in schema else None
        found.append(Facts(spoken=frozenset({"array"}), elements=(Elements(first, rest),)))
    return reduce(meet, found)


def _check(part: At, keyword: str, value: Any) -> None:
    if keyword == "$id" and part.place != "#":
        part.refuse(keyword, "a schema within the schema changes where references lead; leave it out")
    if keyword == "nullable" and value is False:
        return
    if keyword in REFUSED:
        part.refuse(keyword, REFUSED[keyword])
    if keyword in _SAYING or keyword in ANNOTATIONS or keyword in APPLIED or keyword.startswith("x-"):
        return
    if keyword not in SUPPORTED:
        part.refuse(keyword, "it is unknown, and would have no effect; correct it, or begin its name with x-")


def _members(part: At) -> Members:
    named = [
        {name: part.under(keyword, name) for name in part.schema.get(keyword, ())}
        for keyword in ("properties", "patternProperties")
    ]
    rest = part.under("additionalProperties") if "additionalProperties" in part.schema else None
    return Members(named[0], named[1], rest)


def _number(part: At, keyword: str, value: Any) -> Decimal:
    if not isfinite(value):
        part.refuse(keyword, f"{value} is no number; leave it out")
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def _bound(side: str, keyword: str, *, is_open: bool = False) -> Callable[[At, Any], Facts]:
    def say(part: At, value: Any) -> Facts:
        bound = Bound(_number(part, keyword, value), is_open)
        return Facts(spoken=frozenset({"number"}), **{side: bound})  # type: ignore[arg-type]

    return say


def _plain(kind: str, fact: str, wrap: Callable[[Any], Any] = int) -> Callable[[At, Any], Facts]:
    """A keyword whose value is the fact itself."""
    return lambda _, value: Facts(spoken=frozenset({kind}), **{fact: wrap(value)})


def _type(_: At, value: Any) -> Facts:
    return Facts(types=with_integers(frozenset([value] if isinstance(value, str) else value)))


def _multiple(part: At, value: Any) -> Facts:
    _number(part, "multipleOf", value)
    return Facts(spoken=frozenset({"number"}), steps=(value,))


def _format(part: At, value: str) -> Facts:
    if value in FORMATS:
        return Facts(spoken=frozenset({"string"}), formats=(value,))
    if value not in NUMBERS:
        known = ", ".join(sorted([*FORMATS, *NUMBERS]))
        part.refuse("format", f"{value!r} is not supported; leave it out, use pattern, or one of these: {known}")
    low, high = NUMBERS[value] or (None, None)
    ends = {name: Bound(Decimal(end)) for name, end in (("low", low), ("high", high)) if end is not None}
    return Facts(spoken=frozenset({"number"}), low=ends.get("low"), high=ends.get("high"))


def _unique(part: At, value: bool) -> Facts:
    return Facts(spoken=frozenset({"array"}), unique=(part,) if value else ())


_SAYING: Mapping[str, Callable[[At, Any], Facts]] = {
    "type": _type,
    "enum": lambda _, value: Facts(values=tuple(value)),
    "const": lambda _, value: Facts(values=(value,)),
    "minimum": _bound("low", "minimum"),
    "maximum": _bound("high", "maximum"),
    "exclusiveMinimum": _bound("low", "exclusiveMinimum", is_open=True),
    "exclusiveMaximum": _bound("high", "exclusiveMaximum", is_open=True),
    "multipleOf": _multiple,
    "minLength": _plain("string", "shortest"),
    "maxLength": _plain("string", "longest"),
    "pattern": _plain("string", "patterns", lambda value: (value,)),
    "format": _format,
    "minItems": _plain("array", "fewest"),
    "maxItems": _plain("array", "most"),
    "uniqueItems": _unique,
    "minProperties": _plain("object", "least_properties"),
    "maxProperties": _plain("object", "most_properties"),
    "required": _plain("object", "required", tuple),
    "propertyNames": lambda part, _: Facts(spoken=frozenset({"object"}), names=(part.under("propertyNames"),)),
}
_INSIDE = frozenset({"properties", "patternProperties", "additionalProperties", "prefixItems", "items"})
#: Every keyword that is honoured.
SUPPORTED = frozenset(_SAYING) | _INSIDE | APPLIED
