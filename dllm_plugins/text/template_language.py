"""What chat templates may say beside jinja itself: the filters, functions and tags that transformers has for them.

They are written down here because importing transformers for them takes longer than a first answer. A test compares
the two, so that what a new version of transformers adds or forbids is noticed.
"""

import json
from datetime import datetime
from typing import Any
from typing import NoReturn

from jinja2 import TemplateError
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.ext import LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.utils import Namespace


class Generation(Extension):
    """`{% generation %}` ... `{% endgeneration %}` tells a trainer what the assistant has said; here it is text."""

    tags = {"generation"}  # noqa: RUF012  jinja reads it of the class

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call, which is what gives its variables a scope of their own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Macro) -> str:
        return str(caller())


class SafeNamespace(Namespace):
    """`namespace(...)`, in which no name begins with an underscore: such names lead out of the sandbox."""

    def __init__(self, /, *pairs: Any, **named: Any) -> None:
        found = dict(*pairs, **named)
        for name in found:
            _check(name)
        super().__init__(found)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        super().__setitem__(name, value)


def _check(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"{name!r} begins with an underscore, and no attribute of a namespace may")


class Mappings:
    """`dict(...)` and `dict.fromkeys(...)`, and nothing else of Python's class."""

    def __call__(self, *pairs: Any, **named: Any) -> dict[Any, Any]:
        """As Python's own."""
        return dict(*pairs, **named)

    def fromkeys(self, *keys: Any, **named: Any) -> dict[Any, Any]:
        """As Python's own."""
        return dict.fromkeys(*keys, **named)


def tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON as a model reads it: jinja's own filter writes it for pages of the web, whose signs it replaces."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> NoReturn:
    """How a template refuses a chat.

    :raises TemplateError: always.
    """
    raise TemplateError(message)


def strftime_now(format: str) -> str:
    """The local date and time."""
    return datetime.now().strftime(format)


EXTENSIONS: tuple[type[Extension], ...] = (Generation, LoopControlExtension)
FILTERS = {"tojson": tojson}
GLOBALS = {
    "raise_exception": raise_exception,
    "strftime_now": strftime_now,
    "dict": Mappings(),
    "namespace": SafeNamespace,
}
