"""Rows of the output, as OpenAI's batches write them."""

import json
from collections.abc import Mapping
from typing import Any

from dllm_plugins.errors import DllmError
from dllm_plugins.jobs.folder import id_of
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.lines import Refused
from dllm_plugins.jobs.lines import asked
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.errors import told


def record(key: str, line: Line, custom_id: str | None, status: int, body: Mapping[str, Any]) -> Record:
    """A row that a server would have answered so.

    :param key: stands for the job.
    """
    name = id_of(key, line.place)
    response = {"status_code": status, "request_id": f"req_{name}", "body": body}
    error = None if status == 200 else {"code": _code(body), "message": body["error"]["message"]}
    row = {"id": f"batch_req_{name}", "custom_id": custom_id, "response": response, "error": error}
    # In ASCII: some readers end lines at more characters than JSON does.
    return Record(line.place, status, json.dumps(row, allow_nan=False).encode("ascii"))


def _code(body: Mapping[str, Any]) -> str:
    code: str = body["error"]["code"] or body["error"]["type"]
    return code


def refused(key: str, line: Line, found: Refused) -> Record:
    """A row that nothing can be asked of."""
    body = ApiError(400, found.message, code=found.code).body()
    return record(key, line, found.custom_id, 400, body)


def failure(key: str, line: Line, plain: bool, error: Exception) -> Record:
    """A row of which an error came in place of an answer.

    :param plain: whether the line is a prompt as it stands.
    """
    ours = isinstance(error, DllmError)
    known = told(error) if ours else ApiError(500, f"{type(error).__name__}: {error}; report it, with this row")
    return record(key, line, asked(line, plain).custom_id, known.status, known.body())
