"""What users say an answer must be: the three forms of a constraint."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias


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

    :param source: in the Lark dialect of llguidance.
    """

    source: str


Constraint: TypeAlias = Regex | JsonSchema | Grammar
