"""From a row to what the engine is asked, and from its answers to a row of the output."""

import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.errors import DllmError
from dllm_plugins.errors import JobError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PassError
from dllm_plugins.events import Finish
from dllm_plugins.jobs.bodies import OPENAI
from dllm_plugins.jobs.bodies import Answer
from dllm_plugins.jobs.bodies import read_body
from dllm_plugins.jobs.folder import id_of
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import CHAT
from dllm_plugins.jobs.lines import TEXT
from dllm_plugins.jobs.lines import Asked
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.lines import Refused
from dllm_plugins.jobs.lines import asked
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.request import Request


@dataclass(frozen=True, slots=True)
class Row:
    """What a row asks of the engine."""

    requests: list[Request]
    write: Callable[[Sequence[Finish]], Record]

    def record(self, finishes: list[Finish]) -> Record:
        """The row of the output."""
        return self.write(finishes)


class Answering:
    """Reads rows of a job, and writes what becomes of them.

    :param key: stands for the job.
    :param plain: whether lines are prompts as they stand.
    """

    def __init__(self, model: Model, options: JobOptions, key: str, plain: bool) -> None:
        self._model = model
        self._options = options
        self._key = key
        self._plain = plain

    def prepare(self, line: Line) -> Row | Record:
        """What a row asks of the engine; the row of the output if it cannot be asked.

        :raises DllmError: for a body that cannot be used.
        """
        found = asked(line, self._plain)
        if isinstance(found, Refused):
            return refused(self._key, line, found)
        url, body = self._completed(found)
        answer = read_body(url, body, self._model, self._name(body), id_of(self._key, line.place))
        requests = [self._own(request, line.place, choice) for choice, request in enumerate(answer.requests)]
        return Row(requests, lambda finishes: self._answered(line, found.custom_id, answer, finishes))

    def failed(self, line: Line, error: Exception) -> Record:
        """The row of the output where the engine refused it, or failed."""
        return failure(self._key, line, self._plain, error)

    def _completed(self, found: Asked) -> tuple[str, Mapping[str, Any]]:
        """The endpoint and the body that a plain prompt stands for."""
        if found.url is not None:
            return found.url, found.body
        system = self._options.system
        body = dict(found.body)
        if not self._model.tokenizer.chat_template:
            if system is not None:
                raise OptionError(
                    f"the system prompt {shown(system)} needs a chat template, and {self._options.name} has none; "
                    f"leave it out, or use an instruct checkpoint"
                )
            return TEXT, body
        prompt = {"role": "user", "content": body.pop("prompt")}
        first = [] if system is None else [{"role": "system", "content": system}]
        return CHAT, body | {"messages": [*first, prompt]}

    def _name(self, body: Mapping[str, Any]) -> str:
        known = (self._options.name, *self._options.aliases)
        name = body.get("model", known[0])
        if name not in known:
            raise OptionError(
                f"model={shown(name)}: this job's is {known[0]!r}; leave model out, or give the job "
                f"--alias {name if isinstance(name, str) else 'NAME'}"
            )
        return known[0]

    def _own(self, request: Request, place: int, choice: int) -> Request:
        """With the job's options where the row has none, and random numbers that are the row's alone."""
        config = self._options.config.with_options(**request.config.given())
        if config.seed is None:
            drawn = sha256(f"{self._options.seed} {place} {choice}".encode()).digest()
            config = config.with_options(seed=int.from_bytes(drawn[:8]) & LARGEST_SEED)
        return Request(request.tokens, config, suffix=request.suffix, template=request.template)

    def _answered(self, line: Line, custom_id: str | None, answer: Answer, finishes: Sequence[Finish]) -> Record:
        return _record(self._key, line, custom_id, 200, answer.body(finishes), None)


def failure(key: str, line: Line, plain: bool, error: Exception) -> Record:
    """The row of the output where an error came in place of an answer."""
    ours = error.detail.text_for(OPENAI) if isinstance(error, DllmError) else None
    message = ours or f"{type(error).__name__}: {error}; report it, with this row"
    theirs = isinstance(error, DllmError) and not isinstance(error, PassError | JobError)
    code, status = ("invalid_request", 400) if theirs else ("server_error", 500)
    return refused(key, line, Refused(asked(line, plain).custom_id, message, code, status))


def refused(key: str, line: Line, found: Refused) -> Record:
    """The row of the output where nothing was asked of the engine."""
    told = {"message": found.message, "code": found.code}
    kind = "invalid_request_error" if found.status < 500 else "server_error"
    body = {"error": {"message": found.message, "type": kind, "param": None, "code": found.code}}
    return _record(key, line, found.custom_id, found.status, body, told)


def _record(
    key: str,
    line: Line,
    custom_id: str | None,
    status: int,
    body: Mapping[str, Any],
    error: Mapping[str, str] | None,
) -> Record:
    name = id_of(key, line.place)
    response = {"status_code": status, "request_id": f"req_{name}", "body": body}
    told = {"id": f"batch_req_{name}", "custom_id": custom_id, "response": response, "error": error}
    # In ASCII: some readers end lines at more characters than JSON does.
    return Record(line.place, status, json.dumps(told, allow_nan=False).encode("ascii"))
