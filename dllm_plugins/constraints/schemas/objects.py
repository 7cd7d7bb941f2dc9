"""Objects: which properties stand in an answer, in which order, and what each must be.

An answer holds properties in the order in which the schema names them. Others stand behind them, and only where the
schema describes what they are: a name that is free for anything tempts a model to ramble, and says nothing to whoever
reads the answer.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from typing import Self

from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.facts import Members
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown


@dataclass(frozen=True, slots=True)
class Shape:
    """What an object is made of.

    :param names: those that the schema names, in its order.
    :param patterns: of further names, which have a schema of their own.
    :param is_open: whether further names are free where no pattern fits.
    """

    names: tuple[str, ...]
    patterns: tuple[str, ...]
    is_open: bool

    @classmethod
    def of(cls, facts: Facts) -> Self:
        """The shape of the objects that facts describe."""
        named = [name for members in facts.members for name in members.properties]
        patterns = dict.fromkeys(pattern for members in facts.members for pattern in members.patterns)
        names = tuple(dict.fromkeys([*named, *facts.required]))
        rests = [members.rest.schema for members in facts.members if members.rest is not None]
        described = any(rest not in ({}, True) for rest in rests) or not (names or patterns)
        return cls(names, tuple(patterns), described and False not in rests)

    def never(self, name: str) -> bool:
        """Whether no answer holds a property of this name."""
        return not (name in self.names or self.is_open or any(found(pattern, name) for pattern in self.patterns))


def parts_of(facts: Facts, name: str) -> tuple[At, ...]:
    """The parts of the schema that a property's value must fit."""
    return tuple(part for members in facts.members for part in _parts(members, name))


def _parts(members: Members, name: str) -> Iterator[At]:
    if name in members.properties:
        yield members.properties[name]
    fitting = [part for pattern, part in members.patterns.items() if found(pattern, name)]
    yield from fitting
    if name not in members.properties and not fitting and members.rest is not None:
        yield members.rest


def parts_by_pattern(facts: Facts, pattern: str | None) -> tuple[At, ...]:
    """The same for names that fit this pattern and no other; None for names that fit none."""
    parts = [m.rest if pattern is None else m.patterns.get(pattern, m.rest) for m in facts.members]
    return tuple(part for part in parts if part is not None)


def found(pattern: str, name: Any) -> bool:
    """Whether a pattern fits a property's name.

    :raises OptionError: for what is no regular expression.
    """
    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise OptionError(f"{shown(pattern)} is no regular expression ({error}); mend it") from error
