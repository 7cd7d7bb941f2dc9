"""`with_structured_output`: answers as objects, held to their schema while they are decoded."""

import json
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models import LanguageModelInput
from langchain_core.output_parsers import BaseCumulativeTransformOutputParser
from langchain_core.outputs import ChatGeneration
from langchain_core.outputs import Generation
from langchain_core.runnables import Runnable
from langchain_core.runnables import RunnableMap
from langchain_core.runnables import RunnablePassthrough
from langchain_core.utils.json import parse_partial_json
from pydantic import BaseModel
from pydantic import ValidationError
from pydantic.v1 import ValidationError as OldValidationError

from dllm_plugins.constraints.response_format import constraint_of
from dllm_plugins.constraints.validation import validated
from dllm_plugins.errors import AnswerError
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import shown
from langchain_dllm.schemas import is_pydantic
from langchain_dllm.schemas import name_of
from langchain_dllm.schemas import schema_of

METHODS = ("json_schema", "function_calling", "json_mode")


class AnswerParser(BaseCumulativeTransformOutputParser[Any]):
    """Answers as values: complete ones are validated, growing ones shown as far as they go.

    LangChain's own parser closes what was cut off, and calls it whole.

    :param json_schema: what complete answers must be.
    :param kind: a pydantic class to make of them; dicts and the like if not given.
    :raises OutputParserException: for an answer that is not complete, or not what was asked for.
    """

    json_schema: dict[str, Any] | bool
    kind: Any = None

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """The value of an answer; of one that still grows None, or as much as can be told."""
        text, reason = _told(result[0])
        if partial and reason is None:
            return self._growing(text)
        try:
            return self._made(validated(text, self.json_schema))
        except (AnswerError, ValidationError, OldValidationError) as error:
            cut = "; a stop string has ended it: leave stop out" if reason == "stop" else ""
            raise OutputParserException(f"{error}{cut}", llm_output=text) from error

    def parse(self, text: str) -> Any:
        """The value of a complete answer."""
        return self.parse_result([Generation(text=text)])

    def _growing(self, text: str) -> Any:
        try:
            return self._made(parse_partial_json(text))
        except (ValueError, ValidationError, OldValidationError):
            return None

    def _made(self, value: Any) -> Any:
        if self.kind is None:
            return value
        return self.kind.model_validate(value) if issubclass(self.kind, BaseModel) else self.kind.parse_obj(value)

    @property
    def _type(self) -> str:
        return "dllm_answer"


def _told(generation: Generation) -> tuple[str, str | None]:
    """The text of an answer, or of the function call that it is; and why it ended."""
    if not isinstance(generation, ChatGeneration):
        return generation.text, None
    message: Any = generation.message
    reason = message.response_metadata.get("finish_reason")
    chunks = getattr(message, "tool_call_chunks", ())
    if chunks:
        return "".join(chunk["args"] or "" for chunk in chunks), reason
    calls = getattr(message, "tool_calls", ())
    if calls:
        return json.dumps(calls[0]["args"]), reason
    cut = getattr(message, "invalid_tool_calls", ())
    return (str(cut[0]["args"]) if cut else generation.text), reason


def structured(
    model: BaseChatModel, schema: Any, *, method: str, include_raw: bool, strict: bool | None, others: dict[str, Any]
) -> Runnable[LanguageModelInput, Any]:
    """See :meth:`langchain_dllm.ChatDLLM.with_structured_output`."""
    if method not in METHODS:
        raise OptionError(f"method={shown(method)} is unknown; use {', '.join(METHODS)}")
    if strict is not None and (method == "json_mode" or not isinstance(strict, bool)):
        raise OptionError(f"strict={shown(strict)} has no meaning with method={method!r}; leave it out")
    if others:
        raise OptionError(
            f"with_structured_output() does not take {', '.join(others)}; bind options to the model first"
        )
    wanted: dict[str, Any] | bool = {"type": "object"} if schema is None else schema_of(schema)
    if schema is None and method != "json_mode":
        raise OptionError(f"method={method!r} needs a schema; give one, or use method='json_mode' for any object")
    if method == "function_calling" and not isinstance(wanted, bool) and not _is_object(wanted):
        raise OptionError("arguments of a function are an object, which the schema is not; use method='json_schema'")
    told = {"ls_structured_output_format": {"kwargs": {"method": method, "strict": strict}, "schema": schema or {}}}
    call = {"as_tool": name_of(schema)} if method == "function_calling" else {}
    bound = model.bind(constraint=constraint_of(wanted), **call, **told)
    parser = AnswerParser(json_schema=wanted, kind=schema if is_pydantic(schema) else None)
    if not include_raw:
        return bound | parser
    parsing = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsing.with_fallbacks([failed], exception_key="parsing_error")


def _is_object(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" or bool(schema.keys() & {"properties", "$ref", "allOf", "anyOf", "oneOf"})
