"""Context-free grammars in Lark's notation, as trees of rules.

Lark's own grammar of its notation reads them (the library `lark`). What is not about languages alone is refused by
its name. Texts are sentences by characters, as for `Lark(..., parser="earley", lexer="dynamic_complete")`: there is no
lexer that would take the longest word.
"""

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import GrammarTree
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Ref
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import optional
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.extras import need

#: Lark's own definition looks back, which no constraint can.
_OWN = {"ESCAPED_STRING": Pattern(r'"(\\.|[^"\\\n])*"')}
_REFUSED = {
    "ignore": "%ignore; write white space where it may stand",
    "override_rule": "%override; write the rule once",
    "declare": "%declare; write what the terminal allows",
    "template_usage": "a template; write its rule out",
}
_REPEATED = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def rules_of(source: str) -> GrammarTree:
    """The grammar that a text in Lark's notation describes; a whole answer is its rule `start`.

    :raises OptionError: for a text that is no grammar, and for what no constraint can have.
    :raises MissingExtraError: without the library lark.
    """
    found = _Reader().read(source)
    if "start" not in found:
        raise OptionError("the grammar has no rule 'start', which says what a whole answer is; add it")
    return GrammarTree(Ref("start"), tuple(found.items()))


@lru_cache(maxsize=1)
def _notation() -> Any:
    lark = need("lark", "a Grammar")
    return lark.Lark.open_from_package("lark", "lark.lark", ["grammars"], parser="lalr", maybe_placeholders=False)


@lru_cache(maxsize=1)
def _common() -> Mapping[str, Node]:
    """The terminals that Lark ships."""
    return _Reader().read((files("lark") / "grammars" / "common.lark").read_text(encoding="utf-8")) | _OWN


def _from_common(name: str) -> Node:
    """A terminal with what it is made of."""
    return GrammarTree(Ref(name), tuple(_common().items()))


class _Reader:
    """Makes a tree of each rule; names of rules are left as they are."""

    def __init__(self) -> None:
        self._rules: dict[str, Node] = {}

    def read(self, source: str) -> dict[str, Node]:
        """The rules and terminals of a grammar by their names."""
        try:
            tree = _notation().parse(source if source.endswith("\n") else f"{source}\n")
        except need("lark", "a Grammar").exceptions.UnexpectedInput as error:
            raise OptionError(
                f"the grammar cannot be read at line {error.line}, column {error.column}: "
                f"{error.get_context(source).strip()!r}; mend it (docs/structured-output.md has examples)"
            ) from None
        for item in tree.children:
            self._item(item)
        return self._rules

    def _item(self, item: Any) -> None:
        match item.data:
            case "rule" | "token":
                name, parameters, *_, what = item.children
                if parameters.children:
                    _refuse("template_usage")
                # Marks say how Lark's trees look, not what is allowed.
                self._define(str(name).lstrip("!?"), self._node(what))
            case "import":
                path, *alias = item.children
                name = self._imported(path.children[:-1], path.children[-1])
                self._define(_name(alias[0]) if alias else name, _from_common(name))
            case "multi_import":
                path, names = item.children
                for child in names.children:
                    name = self._imported(path.children, child)
                    self._define(name, _from_common(name))
            case other:
                _refuse(str(other))

    def _define(self, name: str, what: Node) -> None:
        if name in self._rules:
            raise OptionError(f"the grammar has two rules {name!r}; join them with |")
        self._rules[name] = what

    def _imported(self, path: list[Any], child: Any) -> str:
        name, where = _name(child), ".".join(_name(part) for part in path if hasattr(part, "data"))
        if where != "common" or name not in _common():
            raise OptionError(f"the grammar imports {where}.{name}; only terminals of Lark's `common` can be imported")
        return name

    def _node(self, tree: Any) -> Node:  # noqa: PLR0911
        children = tree.children
        match tree.data:
            case "expansions":
                return Choice(tuple(map(self._node, children)))
            case "expansion":
                return Concat(tuple(map(self._node, children)))
            case "alias":
                return self._node(children[0])
            case "expr":
                return self._repeated(*children)
            case "maybe":
                return optional(self._node(children[0]))
            case "literal":
                return _literal(str(children[0]))
            case "literal_range":
                first, last = (re.escape(ast.literal_eval(str(child))) for child in children)
                return Pattern(f"[{first}-{last}]")
            case "name":
                return Ref(_name(tree).lstrip("!?"))
        _refuse(str(tree.data))
        raise AssertionError("it was refused")

    def _repeated(self, what: Any, *how: Any) -> Node:
        if str(how[0]) in _REPEATED:
            least, most = _REPEATED[str(how[0])]
            return Repeat(self._node(what), least, most)
        numbers = [int(number) for number in how]
        if numbers[0] < 0 or numbers[-1] < numbers[0]:
            raise OptionError(f"the grammar repeats something from {numbers[0]} to {numbers[-1]} times; mend that")
        return Repeat(self._node(what), numbers[0], numbers[-1])


def _name(tree: Any) -> str:
    return str(tree.children[0])


def _literal(text: str) -> Node:
    if text.startswith("/"):
        end = text.rindex("/")
        inside, flags = text[1:end].replace("\\/", "/"), "".join(sorted(set(text[end + 1 :]) - {"u", "l"}))
        return Pattern(f"(?{flags}:{inside})" if flags else inside)
    ignores = text.endswith("i")
    found = ast.literal_eval(text[:-1] if ignores else text)
    return Pattern(f"(?i:{re.escape(found)})") if ignores else Literal(found.encode())


def _refuse(what: str) -> None:
    raise OptionError(f"the grammar uses {_REFUSED.get(what, what)}")
