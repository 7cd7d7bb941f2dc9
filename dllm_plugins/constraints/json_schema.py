"""JSON schemas, draft 2020-12, as trees of languages.

Every text of the tree is JSON that the schema allows; not every such text is in it: properties keep their order,
white space is fixed, numbers and nesting have bounds. A schema that leads back to itself becomes a grammar, whose texts
are nested as deep as there is room for states. `docs/structured-output.md` says which keywords are supported.
"""

from collections.abc import Mapping
from typing import Any

from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.schemas.document import Document
from dllm_plugins.constraints.schemas.size import size_of
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.translating import Translator
from dllm_plugins.errors import OptionError

#: States that an automaton may need by an estimate before bounds of lengths are lowered.
_ROOM = 6_000
#: What no bound may ask for.
_MOST = 20_000
#: Characters of strings and elements of arrays that larger bounds are lowered to, until there is room.
_LONGEST = (500, 250, 120, 60, 30)


def tree_of(schema: Mapping[str, Any] | bool) -> Node:
    """The JSON texts that a schema allows.

    :raises OptionError: for keywords that are not supported, and for schemas that allow no value.
    :raises MissingExtraError: without jsonschema.
    """
    try:
        return _tree(dict(schema) if isinstance(schema, Mapping) else schema)
    except RecursionError:
        raise OptionError("the schema is nested too deeply to be translated; make it flatter") from None


def _tree(schema: dict[str, Any] | bool) -> Node:
    document = Document(schema)
    for longest in _LONGEST:
        translator = Translator(document, longest)
        node = translator.tree()
        if node == NOTHING:
            reasons = "; ".join(dict.fromkeys(translator.reasons)) or "it is false"
            raise OptionError(f"the schema allows no value: {reasons}; mend it")
        if size_of(node) <= _ROOM:
            return node
    if size_of(node) <= _MOST:
        return node
    raise OptionError(
        f"the schema is too large: it needs about {size_of(node)} states; name fewer properties, or lower minLength, "
        f"minItems and what is nested"
    )
