"""Errors as OpenAI's interface tells them."""

import json
from collections.abc import Mapping
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import PLAIN
from dllm_plugins.messages import Dialect

#: Options of the engine that requests call by a name of OpenAI's.
THEIRS = {
    "max_new_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "logprobs": "logprobs",
    "constraint": "response_format",
}
#: The rest stands in an object of ours.
OURS = tuple(name for name in SamplingConfig.model_fields if name not in THEIRS)


def _written(name: str, value: Mapping[str, Any]) -> str:
    return json.dumps({"dllm": {name.removeprefix("dllm."): dict(value)}})


def dialect(**names: str) -> Dialect:
    """How a request calls the engine's options.

    :param names: where it differs from the oldest interfaces.
    """
    return Dialect(THEIRS | {name: f"dllm.{name}" for name in (*OURS, "thinking")} | names, _written)


OPENAI = dialect()


class ApiError(DllmError):
    """What a client is told in place of an answer.

    :param status: of HTTP.
    :param param: the field that is meant.
    :param code: a word for programs.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def told(error: BaseException) -> ApiError:
    """Any error as a client is told of it; what is no error of ours keeps its details to itself."""
    if isinstance(error, ApiError):
        return error
    if not isinstance(error, DllmError):
        return ApiError(500, "the server has failed; its log says how", code="internal_error")
    spoken = OPENAI if error.dialect is PLAIN else error.dialect
    message = error.detail.text_for(spoken)
    if isinstance(error, OptionError | RequestError):
        named = sorted(error.detail.options())
        return ApiError(400, message, param=spoken.of(named[0]) if named else None)
    return ApiError(500, message, code="failed")
