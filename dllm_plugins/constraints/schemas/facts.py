"""What a schema says of a value once references and alternatives are resolved; several of them at once."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields
from typing import Any
from typing import TypeVar

from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.numbers import Bound

T = TypeVar("T")
KINDS = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The properties that one object of keywords describes.

    :param rest: what other properties must be; None if nothing is said of them.
    """

    properties: dict[str, At]
    patterns: dict[str, At]
    rest: At | None


@dataclass(frozen=True, slots=True, eq=False)
class Elements:
    """The elements that one object of keywords describes: the first ones, and what further ones must be."""

    first: tuple[At, ...]
    rest: At | None


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All of them hold at once.

    :param parts: what the facts were read from.
    :param types: None if no `type` is given.
    :param spoken: kinds of values that the keywords say something of.
    :param values: of `enum` and `const`.
    :param unique: where elements are asked to differ.
    """

    parts: tuple[At, ...] = ()
    types: frozenset[str] | None = None
    spoken: frozenset[str] = frozenset()
    values: tuple[Any, ...] | None = None
    low: Bound | None = None
    high: Bound | None = None
    steps: tuple[int | float, ...] = ()
    shortest: int = 0
    longest: int | None = None
    patterns: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    fewest: int = 0
    most: int | None = None
    elements: tuple[Elements, ...] = ()
    unique: tuple[At, ...] = ()
    least_properties: int = 0
    most_properties: int | None = None
    members: tuple[Members, ...] = ()
    required: tuple[str, ...] = ()
    names: tuple[At, ...] = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of values that answers may be: what `type` says, or else what the keywords speak of."""
        found = self.types if self.types is not None else self.spoken or KINDS
        return found - {"integer"} if "number" in found else found

    @property
    def says_nothing(self) -> bool:
        """Whether every value is allowed."""
        return self.types is None and not self.spoken and self.values is None


def meet(left: Facts, right: Facts) -> Facts:
    """What both say."""
    return Facts(**{item.name: _met(item.name, left, right) for item in fields(Facts)})


def _met(name: str, left: Facts, right: Facts) -> Any:
    put_together: Callable[[Any, Any], Any] = _MEETING.get(name, _together)
    return put_together(getattr(left, name), getattr(right, name))


def _together(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*one, *(item for item in other if item not in one)) if one and other else one or other


def _both_given(choose: Callable[[T, T], T]) -> Callable[[T | None, T | None], T | None]:
    """For what may be missing: the one that is given, or `choose` of both."""
    return lambda one, other: other if one is None else one if other is None else choose(one, other)


def _types(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    return with_integers(one) & with_integers(other)


def with_integers(types: frozenset[str]) -> frozenset[str]:
    """A number is an integer, too."""
    return types | {"integer"} if "number" in types else types


def _low(one: Bound, other: Bound) -> Bound:
    return max(one, other, key=lambda bound: (bound.value, bound.open))


def _high(one: Bound, other: Bound) -> Bound:
    return min(one, other, key=lambda bound: (bound.value, not bound.open))


#: How each fact is put together; the others are tuples, of which all entries hold.
_MEETING: dict[str, Callable[[Any, Any], Any]] = {
    "types": _both_given(_types),
    "spoken": lambda one, other: one | other,
    # Which of them go together, the validator says of each.
    "values": _both_given(lambda one, other: min(one, other, key=len)),
    "low": _both_given(_low),
    "high": _both_given(_high),
    **dict.fromkeys(("shortest", "fewest", "least_properties"), max),
    **dict.fromkeys(("longest", "most", "most_properties"), _both_given(min)),
}
