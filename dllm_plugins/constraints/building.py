"""From trees to automata."""

from collections.abc import Callable
from functools import lru_cache

from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.automaton import behind
from dllm_plugins.constraints.automaton import product
from dllm_plugins.constraints.expressions import parse
from dllm_plugins.constraints.nodes import Behind
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import GrammarTree
from dllm_plugins.constraints.nodes import Multiples
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.constraints.numerals import multiples
from dllm_plugins.constraints.parts import Parts
from dllm_plugins.constraints.rules import Grammars


@lru_cache(maxsize=256)
def build(node: Node) -> Automaton:
    """The smallest automaton of a language.

    :raises OptionError: for a pattern that cannot be read, and for a language that needs too many states.
    """
    return built_of(node, build)


def built_of(  # noqa: PLR0911
    node: Node, build_part: Callable[[Node], Automaton], rule: str | None = None
) -> Automaton:
    """The automaton of a tree, given those of its parts.

    :param rule: the rule of a grammar whose right side it is.
    """
    match node:
        case GrammarTree():
            return Grammars(node, built_of).automaton()
        case Both(left, right):
            return product(build_part(left), build_part(right))
        case Without(what, never):
            return product(build_part(what), build_part(never), without=True)
        case Pattern(source):
            return build_part(parse(source))
        case Behind(beginning, what):
            return behind(build_part(what), beginning)
        case Multiples(of, places):
            return multiples(of, places)
    return Parts(build_part, rule).automaton(node)
