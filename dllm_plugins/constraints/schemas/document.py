"""A schema as a document: its parts by their places, references between them, and the validator that knows it all."""

from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import NoReturn
from urllib.parse import unquote

from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import shown


@dataclass(frozen=True, slots=True)
class At:
    """A part of a schema.

    :param place: its JSON pointer, which alone says which part it is.
    """

    schema: Any = field(compare=False)
    place: str = "#"

    def under(self, *keys: str | int) -> "At":
        """A part further inside."""
        schema, place = self.schema, self.place
        for key in keys:
            schema = schema[key]
            place += "/" + str(key).replace("~", "~0").replace("/", "~1")
        return At(schema, place)

    def refuse(self, keyword: str, reason: str) -> NoReturn:
        """Refuse a keyword of this part.

        :raises OptionError: always.
        """
        raise OptionError(f"the schema's keyword {keyword!r} at {self.place}: {reason}")


class Document:
    """A whole schema.

    :raises OptionError: for what is no schema of draft 2020-12.
    :raises MissingExtraError: without jsonschema.
    """

    def __init__(self, schema: Any) -> None:
        self.root = At(schema)
        self.validator = validator_of(schema)

    def allows(self, parts: tuple[At, ...], value: Any) -> bool:
        """Whether a value is valid under all of these parts."""
        return all(self.validator.evolve(schema=part.schema).is_valid(value) for part in parts)

    def target(self, part: At) -> At:
        """Where the reference of a part leads.

        :raises OptionError: if it leads nowhere, or out of the document.
        """
        reference = part.schema["$ref"]
        if reference != "#" and not reference.startswith("#/"):
            part.refuse("$ref", f"{shown(reference)} leads out of the schema; copy what it names into $defs")
        found = self.root
        for step in unquote(reference).split("/")[1:]:
            key: str | int = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found.schema, list) and str(key).isdecimal():
                key = int(key)
            try:
                found = found.under(key)
            except (KeyError, IndexError, TypeError):
                part.refuse("$ref", f"there is no {reference!r} in the schema; correct the reference")
        return found


def validator_of(schema: Any) -> Any:
    """Jsonschema's validator of a schema, formats included.

    :raises OptionError: for what is no schema of draft 2020-12.
    :raises MissingExtraError: without jsonschema.
    """
    kind = need("jsonschema", "a JSON schema as a constraint").Draft202012Validator
    if not isinstance(schema, dict | bool):
        raise OptionError(
            f"{shown(schema)} is no JSON schema; give a dict, True or False, and of a pydantic class its "
            f"model_json_schema()"
        )
    try:
        error = next(kind(kind.META_SCHEMA).iter_errors(schema), None)
    except RecursionError:
        raise OptionError("the schema is nested too deeply to be read; make it flatter") from None
    if error is not None:
        place = "/".join(["#", *map(str, error.absolute_path)])
        raise OptionError(f"the schema is not one of draft 2020-12, at {place}: {_first_line(error.message)}; mend it")
    # Without a registry of its own it would fetch what a reference names.
    registry = need("referencing", "a JSON schema as a constraint").Registry()
    return kind(schema, registry=registry, format_checker=kind.FORMAT_CHECKER)


def _first_line(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]} ..."
