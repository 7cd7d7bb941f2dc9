"""reST roles of docstrings, for mkdocstrings: :class:`~a.b.C` becomes a link to C where C has a place."""

import re
from html import escape
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(~?)([\w.]+)`")


def _full_name(scope: griffe.Object, name: str) -> str:
    """`name` as seen from `scope`: relative to a class or module around it, or absolute already."""
    try:
        head, _, rest = scope.resolve(name.partition(".")[0]), *name.partition(".")[1:]
    except griffe.NameResolutionError:
        return name
    return f"{head}.{rest}" if rest else head


class Roles(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for everything griffe collects."""
        if obj.docstring is None:
            return

        def link(found: re.Match[str]) -> str:
            shown = found[2].rpartition(".")[2] if found[1] else found[2]
            target = escape(_full_name(obj, found[2]))
            return f'<autoref identifier="{target}" optional><code>{escape(shown)}</code></autoref>'

        obj.docstring.value = ROLE.sub(link, obj.docstring.value)
