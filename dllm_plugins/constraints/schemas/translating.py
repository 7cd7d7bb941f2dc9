"""From parts of a schema to trees: every kind of value that JSON has."""

from functools import lru_cache

from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import GrammarTree
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Ref
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.schemas.alternatives import Alternatives
from dllm_plugins.constraints.schemas.containers import array_of
from dllm_plugins.constraints.schemas.containers import object_of
from dllm_plugins.constraints.schemas.document import At
from dllm_plugins.constraints.schemas.document import Document
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.listing import counted
from dllm_plugins.constraints.schemas.numbers import FREE_NUMBER
from dllm_plugins.constraints.schemas.scalars import integer_of
from dllm_plugins.constraints.schemas.scalars import number_of
from dllm_plugins.constraints.schemas.scalars import string_content
from dllm_plugins.constraints.schemas.spelling import COLON
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.spelling import PLAIN
from dllm_plugins.constraints.schemas.spelling import any_string
from dllm_plugins.constraints.schemas.spelling import choice
from dllm_plugins.constraints.schemas.spelling import concat
from dllm_plugins.constraints.schemas.spelling import constant
from dllm_plugins.constraints.schemas.spelling import quoted

#: How deep arrays and objects lie in one another where a schema says nothing of them.
FREE_DEPTH = 2
_CONSTANTS = {"null": (b"null",), "boolean": (b"true", b"false")}


class Translator:
    """The trees of a document's parts, each made once.

    :param longest: see :class:`~dllm_plugins.constraints.schemas.containers.Translating`.
    """

    def __init__(self, document: Document, longest: int) -> None:
        self.document, self.longest = document, longest
        #: Why parts allow no value.
        self.reasons: list[str] = []
        self._alternatives = Alternatives(document)
        self._known: dict[tuple[At, ...], Node] = {}
        self._open: set[tuple[At, ...]] = set()
        self._rules: dict[str, Node] = {}
        self._named: set[str] = set()

    def tree(self) -> Node:
        """The whole document's."""
        found = self.node((self.document.root,))
        return GrammarTree(found, tuple(self._rules.items())) if self._rules else found

    def node(self, parts: tuple[At, ...]) -> Node:
        """The values that fit all these parts.

        A part that leads back to itself is a rule of a grammar.

        :raises OptionError: for what is not supported.
        """
        if parts in self._known:
            return self._known[parts]
        name = " ".join(part.place for part in parts)
        if parts in self._open:
            self._named.add(name)
            return Ref(name)
        self._open.add(parts)
        found = choice(self._node(facts) for facts in self._alternatives.of(parts))
        self._open.remove(parts)
        if name in self._named:
            self._rules[name], found = found, Ref(name)
        self._known[parts] = found
        return found

    def string(self, parts: tuple[At, ...]) -> Node:
        """What stands between the quotes of strings that fit all these parts."""
        found = [facts for facts in self._alternatives.of(parts) if "string" in facts.kinds]
        return choice(string_content(facts, self.longest) for facts in found)

    def values(self, parts: tuple[At, ...]) -> list[object] | None:
        """All values that fit these parts, if the schema lists them."""
        alternatives = self._alternatives.of(parts)
        if any(facts.values is None for facts in alternatives):
            return None
        return [
            value
            for facts in alternatives
            for value in facts.values or ()
            if self.document.allows((*parts, *facts.parts), value)
        ]

    def never(self, part: At, reason: str) -> Node:
        """Nothing, and why."""
        self.reasons.append(f"{reason} ({part.place})")
        return NOTHING

    def _node(self, facts: Facts) -> Node:
        if facts.values is not None:
            allowed = [value for value in facts.values if self.document.allows(facts.parts, value)]
            found = choice(Literal(constant(value)) for value in allowed)
            return found if allowed else self.never(facts.parts[0], "no value of enum or const fits what else is said")
        if facts.says_nothing:
            return any_value(FREE_DEPTH)
        return choice(self._kind(kind, facts) for kind in sorted(facts.kinds))

    def _kind(self, kind: str, facts: Facts) -> Node:
        match kind:
            case "string":
                found = quoted(string_content(facts, self.longest))
            case "integer":
                found = integer_of(facts, self.document)
            case "number":
                found = number_of(facts, self.document)
            case "array":
                return array_of(facts, self)
            case "object":
                return object_of(facts, self)
            case _:
                found = choice(map(Literal, _CONSTANTS[kind]))
        return found if found != NOTHING else self.never(facts.parts[0], f"no {kind} is within the bounds")


@lru_cache(maxsize=4)
def any_value(depth: int) -> Node:
    """Any value, with arrays and objects up to a depth."""
    scalar = choice([*(Literal(text) for texts in _CONSTANTS.values() for text in texts), FREE_NUMBER])
    found = choice([scalar, quoted(any_string())])
    for _ in range(depth):
        entry = concat(quoted(Repeat(Characters(PLAIN))), Literal(COLON), found)
        array = concat(Literal(b"["), counted(found, 0, None), Literal(b"]"))
        found = choice(
            [scalar, quoted(any_string()), array, concat(Literal(b"{"), counted(entry, 0, None), Literal(b"}"))]
        )
    return found
