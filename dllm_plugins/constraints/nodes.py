"""Regular languages, written as trees: what a constraint is translated into before it becomes an automaton.

Texts are sequences of bytes in UTF-8. A tree says which whole texts belong to the language.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly this text."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of a set.

    :param ranges: first and last code point of each range, ascending and apart from one another.
    """

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """The texts that a regular expression matches as a whole.

    :param source: in the syntax of Python's `re`, without look-around, back references and word boundaries.
    """

    source: str


@dataclass(frozen=True, slots=True)
class Concat:
    """One part after another; the empty text if there is none."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """What any of these allows; nothing if there is none."""

    options: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`what` from `least` to `most` times, without a bound if `most` is None."""

    what: "Node"
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Both:
    """What both allow."""

    left: "Node"
    right: "Node"


@dataclass(frozen=True, slots=True)
class Without:
    """What `what` allows and `never` does not."""

    what: "Node"
    never: "Node"


@dataclass(frozen=True, slots=True)
class Behind:
    """What follows a beginning in the texts of `what` that have it."""

    beginning: bytes
    what: "Node"


@dataclass(frozen=True, slots=True)
class Multiples:
    """Decimal numerals without a sign and without leading zeros whose value can be divided.

    :param of: the divisor, at least 1, in units of the last place.
    :param places: digits behind the point; 0 for whole numbers, which have no point.
    """

    of: int
    places: int = 0


@dataclass(frozen=True, slots=True)
class Ref:
    """What a rule of the grammar around it allows."""

    name: str


@dataclass(frozen=True, slots=True)
class GrammarTree:
    """A grammar: a tree whose parts may be rules, by their names, and these rules.

    What is allowed is a sentence of it; see :mod:`dllm_plugins.constraints.rules` for how deep one may be nested.
    """

    start: "Node"
    rules: tuple[tuple[str, "Node"], ...]


Node: TypeAlias = (
    Literal | Characters | Pattern | Concat | Choice | Repeat | Both | Without | Behind | Multiples | Ref | GrammarTree
)
EMPTY = Literal(b"")


def optional(what: Node) -> Node:
    """It, or nothing."""
    return Choice((EMPTY, what))
