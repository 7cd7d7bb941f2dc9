"""Finished answers, looked at once more by a library that knows nothing of automata."""

import json
from collections.abc import Mapping
from typing import Any

from dllm_plugins.constraints.schemas.document import validator_of
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.errors import AnswerError


def validated(answer: str, schema: Mapping[str, Any] | bool) -> Any:
    """The value that an answer spells, if a JSON schema allows it.

    :raises AnswerError: for an answer that is no JSON, or not what the schema asks for.
    :raises OptionError: for what is no schema.
    :raises MissingExtraError: without jsonschema.
    """
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise AnswerError(
            f"the answer is no JSON ({error}): it was ended before it was complete, or not held to a schema; it reads "
            f"{_end_of(answer)}"
        ) from error
    wrong = next(validator_of(schema).iter_errors(value), None)
    if wrong is not None:
        place = "/".join(["#", *map(str, wrong.absolute_path)])
        raise AnswerError(f"the answer is not what the schema asks for, at {place}: {wrong.message}")
    return value


def check_answer(answer: str, constraint: Constraint | None, reason: str) -> None:
    """Make sure that a complete answer is what was asked for; one that a stop string has cut is not complete.

    :param reason: why it ended; see :data:`dllm_plugins.events.FinishReason`.
    :raises AnswerError: if it is not.
    """
    if isinstance(constraint, JsonSchema) and reason != "stop":
        validated(answer, constraint.schema)


def _end_of(answer: str) -> str:
    return repr(answer) if len(answer) <= 80 else f"... {answer[-80:]!r}"
