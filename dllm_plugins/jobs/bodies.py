"""Bodies of the endpoints, completed by what the job says of all rows where a row says nothing."""

from collections.abc import Mapping
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.jobs.lines import CHAT
from dllm_plugins.jobs.lines import RESPONSES
from dllm_plugins.jobs.lines import TEXT
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.chat_answers import ChatAnswers
from dllm_plugins.serving.completion_answers import CompletionAnswers
from dllm_plugins.serving.completions import CompletionRequest
from dllm_plugins.serving.errors import OURS
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.invalid import read
from dllm_plugins.serving.response_answers import ResponseAnswers
from dllm_plugins.serving.responses import ResponseRequest

Body = ChatRequest | CompletionRequest | ResponseRequest
#: What reads the bodies of an endpoint, and what tells of their answers.
SHAPES: Mapping[str, tuple[type[Body], Any]] = {
    CHAT: (ChatRequest, ChatAnswers),
    TEXT: (CompletionRequest, CompletionAnswers),
    RESPONSES: (ResponseRequest, ResponseAnswers),
}
#: How each endpoint says how long an answer may get; the first name is the one to use.
_LENGTHS = {CHAT: ("max_tokens", "max_completion_tokens"), TEXT: ("max_tokens",), RESPONSES: ("max_output_tokens",)}
#: Fields that say what an answer must be, besides those of `dllm`.
_FORMS = ("response_format", "text", "tools")


def read_body(url: str, body: Mapping[str, Any], config: SamplingConfig) -> Body:
    """A body of an endpoint.

    :param config: the job's options.
    :raises ApiError: naming the field that is wrong.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if given.get("stream"):
        raise ApiError(400, "stream: the rows of a job are answered whole; leave it out", param="stream")
    shape, _ = SHAPES[url]
    return read(shape, _completed(url, shape, given, config.given()))


def _completed(url: str, shape: type[Body], given: dict[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    same = {"temperature", "top_p", "seed"} & shape.model_fields.keys()
    fields = {name: job[name] for name in sorted(same & job.keys())}
    if "stop" in job and "stop" in shape.model_fields:
        fields["stop"] = list(job["stop"])
    if "max_new_tokens" in job and not given.keys() & _LENGTHS[url]:
        fields[_LENGTHS[url][0]] = job["max_new_tokens"]
    if "logprobs" in job and not given.keys() & {"logprobs", "top_logprobs"}:
        fields |= {"logprobs": True} if url == CHAT else {}
        fields["logprobs" if url == TEXT else "top_logprobs"] = job["logprobs"]
    own = given.get("dllm", {})
    if not isinstance(own, dict):
        # What is said of it is the endpoint's business.
        return fields | given
    options = {name: job[name] for name in OURS if name in job} | own
    if "constraint" in job and not (given.keys() & _FORMS or own.keys() & {"regex", "grammar"}):
        fields, options = _held(url, fields, options, job["constraint"])
    return fields | given | ({"dllm": options} if options else {})


def _held(
    url: str, fields: dict[str, Any], options: dict[str, Any], constraint: object
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same, with the job's constraint as the endpoint says it.

    :raises ApiError: for a schema where the endpoint knows none.
    """
    match constraint:
        case Regex(pattern):
            return fields, options | {"regex": pattern}
        case Grammar(text):
            return fields, options | {"grammar": text}
        case JsonSchema(schema) if url != TEXT:
            described = {"name": "answer", "schema": schema}
            if url == CHAT:
                return fields | {"response_format": {"type": "json_schema", "json_schema": described}}, options
            return fields | {"text": {"format": {"type": "json_schema", **described}}}, options
    raise ApiError(400, f"{url} knows no schemas, and the job asks for one; ask for a chat", param="response_format")
