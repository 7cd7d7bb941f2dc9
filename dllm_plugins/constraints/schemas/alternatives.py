"""References, `allOf`, `anyOf` and `oneOf`: a schema as the alternatives there are, each without any of them."""

from itertools import permutations

from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.document import Document
from dllm_plugins.constraints.schemas.facts import KINDS
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.facts import meet
from dllm_plugins.constraints.schemas.facts import with_integers
from dllm_plugins.constraints.schemas.keywords import facts_of
from dllm_plugins.constraints.schemas.objects import Shape
from dllm_plugins.constraints.schemas.objects import parts_of

#: More would be combinations of combinations.
_MOST = 256


class Alternatives:
    """The alternatives of the parts of a document, each part read once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._known: dict[At, list[Facts]] = {}
        self._open: set[At] = set()
        # Options are told apart by what is inside them, which may lead back to a part that is still being read.
        self._unchecked: list[tuple[At, list[list[Facts]]]] = []
        self._comparing: set[tuple[int, int]] = set()

    def of(self, parts: tuple[At, ...]) -> list[Facts]:
        """The alternatives when all of these parts hold.

        :raises OptionError: for what is not supported.
        """
        found = [Facts()]
        for part in parts:
            found = _met(part, found, self._of(part))
        while self._unchecked and not self._open:
            self._check_apart(*self._unchecked.pop())
        return found

    def _of(self, part: At) -> list[Facts]:
        if part not in self._known:
            if part in self._open:
                part.refuse("$ref", "it leads back to itself with nothing in between; let it lead to something else")
            self._open.add(part)
            self._known[part] = self._read(part)
            self._open.remove(part)
        return self._known[part]

    def _read(self, part: At) -> list[Facts]:
        schema = part.schema
        if isinstance(schema, bool):
            return [Facts(parts=(part,))] if schema else []
        found = [facts_of(part)]
        if "$ref" in schema:
            found = _met(part, found, self._of(self._document.target(part)))
        for option in _listed(part, "allOf"):
            found = _met(part, found, self._of(option))
        if "anyOf" in schema:
            found = _met(part, found, [facts for option in _listed(part, "anyOf") for facts in self._of(option)])
        if "oneOf" in schema:
            options = [_met(part, found, self._of(option)) for option in _listed(part, "oneOf")]
            self._unchecked.append((part, options))
            found = [facts for option in options for facts in option]
        return found

    def _check_apart(self, part: At, options: list[list[Facts]]) -> None:
        """Make sure that no answer is of two options.

        :raises OptionError: if that cannot be told.
        """
        if all(facts.values is not None for option in options for facts in option):
            # The validator looks at each value by itself.
            return
        for (one, left), (other, right) in permutations(enumerate(options), 2):
            if not all(self._excluded(own, against) for own in left for against in right):
                part.refuse(
                    "oneOf",
                    f"nothing tells options {one} and {other} apart; use anyOf, or give each a required property "
                    f"with a const of its own",
                )

    def _excluded(self, own: Facts, other: Facts) -> bool:
        """Whether no answer of `own` is valid for `other`."""
        if own.values is not None:
            return not any(self._document.allows((*own.parts, *other.parts), value) for value in own.values)
        if other.values is not None:
            return not any(self._document.allows((*own.parts, *other.parts), value) for value in other.values)
        types = with_integers(KINDS) if other.types is None else other.types
        kinds = own.kinds & types | ({"number"} if "number" in own.kinds and "integer" in types else set())
        return all(self._differ(kind, own, other) for kind in kinds)

    def _differ(self, kind: str, own: Facts, other: Facts) -> bool:
        if kind in ("integer", "number"):
            ends = ((own.high, other.low), (other.high, own.low))
            return any(
                high and low and (high.value < low.value or (high.value == low.value and (high.open or low.open)))
                for high, low in ends
            )
        if kind == "string":
            return _apart(own.shortest, own.longest, other.shortest, other.longest)
        if kind == "array":
            return _apart(own.fewest, own.most, other.fewest, other.most)
        return kind == "object" and self._different_objects(own, other)

    def _different_objects(self, own: Facts, other: Facts) -> bool:
        shape, key = Shape.of(own), (id(own), id(other))
        if any(shape.never(name) for name in other.required):
            return True
        if key in self._comparing:
            return False
        self._comparing.add(key)
        found = any(self._different_property(own, other, name) for name in own.required)
        self._comparing.remove(key)
        return found

    def _different_property(self, own: Facts, other: Facts, name: str) -> bool:
        parts = parts_of(other, name)
        return bool(parts) and all(
            self._excluded(left, right) for left in self.of(parts_of(own, name)) for right in self.of(parts)
        )


def _listed(part: At, keyword: str) -> list[At]:
    return [part.under(keyword, number) for number in range(len(part.schema.get(keyword, ())))]


def _met(part: At, left: list[Facts], right: list[Facts]) -> list[Facts]:
    found = [facts for one in left for other in right if (facts := meet(one, other)).types != frozenset()]
    if len(found) > _MOST:
        part.refuse("anyOf", f"it makes more than {_MOST} combinations of alternatives; write fewer of them")
    return found


def _apart(least: int, most: int | None, other_least: int, other_most: int | None) -> bool:
    return (most is not None and most < other_least) or (other_most is not None and other_most < least)
