"""Schemas of our own commands, written as for `llm --schema`."""

from typing import Any

from dllm_plugins.errors import OptionError


def schema_of(schema: str | None, several: str | None) -> dict[str, Any] | None:
    """What `--schema` or `--schema-multi` says: JSON, llm's short form, a file, `t:` and a template, a stored id.

    :raises OptionError: for both.
    """
    if schema is None and several is None:
        return None
    if schema is not None and several is not None:
        raise OptionError(f"--schema {schema!r} and --schema-multi {several!r} both say what is wanted; give one")
    from llm.cli import load_template
    from llm.cli import logs_db_path
    from llm.migrations import migrate
    from llm.utils import multi_schema
    from llm.utils import resolve_schema_input
    from sqlite_utils import Database

    place = logs_db_path()  # type: ignore[no-untyped-call]
    stored = Database(place) if place.exists() else Database(memory=True)
    migrate(stored)  # type: ignore[no-untyped-call]
    found: dict[str, Any] | None = resolve_schema_input(  # type: ignore[no-untyped-call]
        stored, schema or several, load_template
    )
    return multi_schema(found) if found is not None and several is not None else found
