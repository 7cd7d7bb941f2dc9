"""Arrays and objects, by what the facts say of them."""

from collections.abc import Iterator
from typing import Protocol

from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.document import Document
from dllm_plugins.constraints.schemas.facts import Elements
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.listing import chain
from dllm_plugins.constraints.schemas.listing import listed
from dllm_plugins.constraints.schemas.listing import repeated
from dllm_plugins.constraints.schemas.listing import within
from dllm_plugins.constraints.schemas.objects import Shape
from dllm_plugins.constraints.schemas.objects import parts_by_pattern
from dllm_plugins.constraints.schemas.objects import parts_of
from dllm_plugins.constraints.schemas.patterns import searched
from dllm_plugins.constraints.schemas.spelling import COLON
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.spelling import PLAIN
from dllm_plugins.constraints.schemas.spelling import choice
from dllm_plugins.constraints.schemas.spelling import concat
from dllm_plugins.constraints.schemas.spelling import constant
from dllm_plugins.constraints.schemas.spelling import quoted

#: Names that the schema does not give are written without escapes, so that none is a given one in other letters.
_NAME = Repeat(Characters(PLAIN))


class Translating(Protocol):
    """What arrays and objects need for what is inside them."""

    document: Document
    #: A larger bound of elements or characters is lowered to it.
    longest: int

    def node(self, parts: tuple[At, ...]) -> Node:
        """The values that fit all these parts."""

    def string(self, parts: tuple[At, ...]) -> Node:
        """What stands between the quotes of strings that fit all these parts."""

    def values(self, parts: tuple[At, ...]) -> list[object] | None:
        """All values that fit these parts, if the schema lists them."""

    def never(self, part: At, reason: str) -> Node:
        """Nothing, and why."""


def array_of(facts: Facts, by: Translating) -> Node:
    """Arrays: what `prefixItems` describes, then what `items` does; no more where it is left out beside the former."""
    length = max((len(elements.first) for elements in facts.elements), default=0)
    rests = [elements.rest for elements in facts.elements if elements.rest is not None]
    is_open = bool(rests) or not length
    further = by.node(_element(facts.elements, length)) if is_open else NOTHING
    first = [by.node(_element(facts.elements, place)) for place in range(length)]
    if NOTHING in first:
        first, further = first[: first.index(NOTHING)], NOTHING
    most = facts.most if further != NOTHING else min(len(first), len(first) if facts.most is None else facts.most)
    if most is not None and most < facts.fewest:
        return by.never(facts.parts[0], f"an array has at least {facts.fewest} elements and at most {most}")
    if facts.unique and most not in (0, 1):
        return _bracketed(_different(facts, by, most))
    first = first[:most]
    most = None if most is None else max(facts.fewest, min(most, by.longest + len(first))) - len(first)
    more = repeated(further, max(facts.fewest - len(first), 0), most)
    return _bracketed(chain(first, more, facts.fewest))


def _element(elements: tuple[Elements, ...], place: int) -> tuple[At, ...]:
    found = [one.first[place] if place < len(one.first) else one.rest for one in elements]
    return tuple(part for part in found if part is not None)


def _different(facts: Facts, by: Translating, most: int | None) -> Node:
    """Elements that differ, in the order in which the schema lists them."""
    values = None if any(one.first for one in facts.elements) else by.values(_element(facts.elements, 0))
    if values is None:
        facts.unique[0].refuse(
            "uniqueItems", "elements can only be kept apart where items has an enum; leave it out, or set maxItems to 1"
        )
    different, kept = by.document.validator.evolve(schema={"uniqueItems": True}), list[object]()
    for value in values:
        kept += [value] if different.is_valid([*kept, value]) else []
    if len(kept) < facts.fewest:
        return by.never(facts.parts[0], f"at least {facts.fewest} of {len(kept)} different elements are asked for")
    nodes = [Literal(constant(value)) for value in kept]
    return within(listed([(node, False) for node in nodes]), nodes, facts.fewest, most)


def _bracketed(content: Node) -> Node:
    return concat(Literal(b"["), content, Literal(b"]"))


def object_of(facts: Facts, by: Translating) -> Node:
    """Objects: the properties that the schema names, in its order, then others where it describes them."""
    shape = Shape.of(facts)
    listed_names = by.values(facts.names) if facts.names else None
    names = [*shape.names]
    if listed_names is not None and (shape.is_open or shape.patterns):
        names += [name for name in listed_names if isinstance(name, str) and name not in names]
    entries = list[tuple[Node, bool]]()
    for name in names:
        node = by.node(parts_of(facts, name)) if by.document.allows(facts.names, name) else NOTHING
        if node != NOTHING:
            entries.append((concat(Literal(constant(name) + COLON), node), name in facts.required))
        elif name in facts.required:
            return by.never(facts.parts[0], f"the required property {name!r} can have no value")
    further = NOTHING if listed_names is not None else choice(_further(facts, shape, names, by))
    content = _limited(facts, entries, further, by)
    return concat(Literal(b"{"), content, Literal(b"}"))


def _further(facts: Facts, shape: Shape, names: list[str], by: Translating) -> Iterator[Node]:
    """Properties that the schema does not name."""
    found = {pattern: Both(_NAME, searched(pattern)) for pattern in shape.patterns}
    given = [Literal(constant(name)[1:-1]) for name in names]
    keys: list[tuple[str | None, Node]] = list(found.items())
    for pattern, key in [*keys, (None, _NAME)] if shape.is_open else keys:
        others: list[Node] = [*given, *(node for other, node in found.items() if other != pattern)]
        allowed = Without(key, choice(others)) if others else key
        if facts.names:
            allowed = Both(allowed, by.string(facts.names))
        yield concat(quoted(allowed), Literal(COLON), by.node(parts_by_pattern(facts, pattern)))


def _limited(facts: Facts, entries: list[tuple[Node, bool]], further: Node, by: Translating) -> Node:
    """As many properties as `minProperties` and `maxProperties` say."""
    least, most = facts.least_properties, facts.most_properties
    needed, known = sum(is_needed for _, is_needed in entries), len(entries)
    if least > needed and least > 1 and further != NOTHING:
        facts.parts[0].refuse(
            "minProperties", f"{least} names that are free might be the same; set it to 1, or name properties"
        )
    end = known if further == NOTHING else None
    if (most is not None and most < max(needed, least)) or (end is not None and end < least):
        return by.never(facts.parts[0], f"an object has at least {max(needed, least)} properties, which is too many")
    whole = listed(entries, further)
    if least <= needed and (most is None or (end is not None and most >= end)):
        return whole
    return within(whole, [*(node for node, _ in entries), further], max(least, needed), most)
