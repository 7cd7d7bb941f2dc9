"""Random JSON schemas of the keywords that are supported."""

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]
_VALUES: list[Any] = [1, 2, "a", "b", None, True, 1.5, [1], {"k": 1}, 'é"\\', -3, 0]
_FORMATS = ["date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration", "json-pointer"]
_PATTERNS = [r"^\d{3}$", "ab", r"^[A-Z]\w*$", "^(x|y)+$", '"', "^[^a-z]{2,5}$", "a$"]
_NAMES = ["a", "b", "é", 'x"y', "ab"]


def random_schema(rng: random.Random, depth: int) -> Schema:
    """A schema of values that are nested up to a depth, with two definitions to refer to."""
    definitions = {"A": _number(rng), "B": {"type": "object", "properties": {"q": _string(rng)}, "required": ["q"]}}
    return {**_schema(rng, depth), "$defs": definitions}


def _schema(rng: random.Random, depth: int) -> Schema:
    leaves: list[Callable[[], Schema]] = [
        lambda: {"enum": rng.sample(_VALUES, rng.randint(1, 4))},
        lambda: {"type": ["string", "null", "boolean"]},
        lambda: {"$ref": "#/$defs/" + rng.choice("AB")},
        lambda: _number(rng),
        lambda: _string(rng),
    ]
    inner: list[Callable[[], Schema]] = [
        lambda: _array(rng, depth - 1),
        lambda: _object(rng, depth - 1),
        lambda: {rng.choice(["anyOf", "oneOf"]): [_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]},
        lambda: {"allOf": [_schema(rng, depth - 1) for _ in range(2)]},
    ]
    return rng.choice(leaves if depth == 0 else [*leaves, *inner, *inner])()


def _some(rng: random.Random, share: float, keywords: Schema) -> Schema:
    return {name: value for name, value in keywords.items() if rng.random() < share}


def _number(rng: random.Random) -> Schema:
    low, high = rng.choice(["minimum", "exclusiveMinimum"]), rng.choice(["maximum", "exclusiveMaximum"])
    bounds = {low: rng.choice([0, -5, 1.5, 0.25, -1e3]), high: rng.choice([10, 9.75, 1000, 12345.678])}
    step = {"multipleOf": rng.choice([2, 3, 7, 0.5, 0.1, 25])}
    return {"type": rng.choice(["integer", "number"]), **_some(rng, 0.5, bounds), **_some(rng, 0.3, step)}


def _string(rng: random.Random) -> Schema:
    lengths = {"minLength": rng.randint(0, 3), "maxLength": rng.randint(3, 12)}
    kinds = {"pattern": rng.choice(_PATTERNS), "format": rng.choice(_FORMATS)}
    return {"type": "string", **_some(rng, 0.3, lengths), **_some(rng, 0.25, kinds)}


def _array(rng: random.Random, depth: int) -> Schema:
    first = [_schema(rng, depth) for _ in range(rng.randint(1, 2))]
    lengths = {"minItems": rng.randint(0, 2), "maxItems": rng.randint(2, 4), "prefixItems": first}
    items = {"items": rng.choice([_schema(rng, depth), False])}
    return {"type": "array", **_some(rng, 0.3, lengths), **_some(rng, 0.6, items)}


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_NAMES, rng.randint(0, 4))
    more = {
        "required": [name for name in names if rng.random() < 0.5],
        "additionalProperties": rng.choice([_schema(rng, depth), False, True]),
        "patternProperties": {rng.choice(["^a", "^x_", "[0-9]$"]): _schema(rng, depth)},
        "minProperties": rng.randint(0, 1),
        "maxProperties": rng.randint(1, 3),
        "propertyNames": rng.choice([{"pattern": "^[a-c]"}, {"enum": ["a", "b", "k"]}, {"maxLength": 3}]),
    }
    described = {"properties": {name: _schema(rng, depth) for name in names}} if names else {}
    return {"type": "object", **described, **_some(rng, 0.3, more)}
