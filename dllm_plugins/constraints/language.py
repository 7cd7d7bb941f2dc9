"""From what users say to a tree of a language."""

from collections.abc import Sequence

from dllm_plugins.constraints.grammar import rules_of
from dllm_plugins.constraints.json_schema import tree_of
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.constraints.values import Tree

_SPACED = Pattern("(?s) .*")
_ANYTHING = Pattern("(?s).*")


def language_of(constraint: Constraint) -> Node:
    """The texts that a constraint allows.

    :raises OptionError: for one that cannot be read, or that is no language of texts.
    """
    if isinstance(constraint, Tree):
        return constraint.node
    if isinstance(constraint, Regex):
        return Pattern(constraint.pattern)
    if isinstance(constraint, JsonSchema):
        return tree_of(constraint.schema)
    return rules_of(constraint.source)


def written_with_space(language: Node) -> Node:
    """What is to be written so that a tokenizer which takes one space away at the beginning leaves the language."""
    return Choice((Without(language, _SPACED), Concat((Literal(b" "), language))))


def without_any(language: Node, strings: Sequence[str]) -> Node:
    """Its texts in which none of these strings stands."""
    if not strings:
        return language
    holding = tuple(Concat((_ANYTHING, Literal(string.encode()), _ANYTHING)) for string in strings)
    return Without(language, Choice(holding))
