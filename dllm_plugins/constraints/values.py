"""What users say an answer must be: the three forms of a constraint, and the one that code makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

from dllm_plugins.constraints.nodes import Node
from dllm_plugins.messages import Option


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer is matched by a regular expression.

    :param pattern: in the syntax of Python's `re`, without look-around, back references and word boundaries.
    """

    pattern: str


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The whole answer is a JSON value that a schema allows.

    :param schema: a JSON schema, draft 2020-12; which keywords are supported is listed in docs/structured-output.md.
    """

    schema: Mapping[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Grammar:
    """The whole answer is a sentence of a context-free grammar.

    :param source: in Lark's notation; its rule `start` is a whole answer.
    """

    source: str


@dataclass(frozen=True, slots=True)
class Tree:
    """The whole answer belongs to a regular language that is written as a tree: what hosts make of tools.

    :param node: see :mod:`dllm_plugins.constraints.nodes`.
    :param option: what asked for it, for errors.
    """

    node: Node
    option: str = "constraint"


Constraint: TypeAlias = Regex | JsonSchema | Grammar | Tree


def option_of(constraint: Constraint | None) -> Option:
    """What asked for a constraint, for errors."""
    return Option(constraint.option if isinstance(constraint, Tree) else "constraint")
