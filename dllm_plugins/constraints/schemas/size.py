"""How large the automaton of a tree will be, before it is built."""

from itertools import pairwise

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.characters import LAST
from dllm_plugins.constraints.nodes import Behind
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import GrammarTree
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Multiples
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Ref
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import Without

#: The states of one character, by the length of its UTF-8.
_BYTES = ((0x7F, 1), (0x7FF, 2), (LAST, 8))


def size_of(node: Node) -> int:
    """An estimate of its states; parts that occur several times count as often, but are looked at once."""
    return _size(node, {})


def _size(node: Node, known: dict[int, int]) -> int:
    found = known.get(id(node))
    if found is None:
        found = known[id(node)] = _counted(node, known)
    return found


def _counted(node: Node, known: dict[int, int]) -> int:  # noqa: PLR0911
    match node:
        case Literal(text):
            return len(text)
        case Characters(ranges):
            return next(size for last, size in _BYTES if not ranges or ranges[-1][1] <= last)
        case Pattern() | Multiples():
            return len(build(node).table)
        case Choice(options) if all(isinstance(option, Literal) for option in options):
            return _shared([option.text for option in options if isinstance(option, Literal)])
        case Concat(parts) | Choice(parts):
            return sum(_size(part, known) for part in parts)
        case Repeat(what, least, most):
            return _size(what, known) * max(1, least if most is None else most)
        case Behind(_, what):
            return _size(what, known)
        case Both(left, right) | Without(left, right):
            return _size(left, known) + _size(right, known)
        case Ref():
            return 1
        case GrammarTree(start, rules):
            return _size(start, known) + sum(_size(rule, known) for _, rule in rules)


def _shared(texts: list[bytes]) -> int:
    """Letters of texts that may begin alike, each beginning counted once."""
    ordered = [b"", *sorted(texts)]
    return sum(len(text) - _alike(before, text) for before, text in pairwise(ordered))


def _alike(one: bytes, other: bytes) -> int:
    """How many letters two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))
