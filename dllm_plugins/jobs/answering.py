"""From a row to what the engine is asked, and from its answers to a row of the output."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.events import Finish
from dllm_plugins.jobs.bodies import SHAPES
from dllm_plugins.jobs.bodies import Body
from dllm_plugins.jobs.bodies import read_body
from dllm_plugins.jobs.folder import id_of
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import CHAT
from dllm_plugins.jobs.lines import TEXT
from dllm_plugins.jobs.lines import AskedRow
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.lines import Refused
from dllm_plugins.jobs.lines import asked
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.output import failure
from dllm_plugins.jobs.output import record
from dllm_plugins.jobs.output import refused
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.request import Request
from dllm_plugins.routing import AUTO
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.work import Work

#: Options that not every endpoint has a field for.
_BESIDE = ("seed", "stop")


@dataclass(frozen=True, slots=True)
class RowRequest:
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

    def prepare(self, line: Line) -> RowRequest | Record:
        """What a row asks of the engine; the row of the output if it cannot be asked.

        :raises DllmError: for a body that cannot be used.
        """
        found = asked(line, self._plain)
        if isinstance(found, Refused):
            return refused(self._key, line, found)
        url, body = self._completed(found)
        wanted = read_body(url, {**body, "model": self._name(body)}, self._options.config)
        work = wanted.work(self._model)
        requests = [self._own(request, line.place, choice) for choice, request in enumerate(work.requests)]
        return RowRequest(
            requests, lambda finishes: self._answered(line, found.custom_id, (url, wanted, work), finishes)
        )

    def failed(self, line: Line, error: Exception) -> Record:
        """The row of the output where the engine refused it, or failed."""
        return failure(self._key, line, self._plain, error)

    def _completed(self, found: AskedRow) -> tuple[str, Mapping[str, Any]]:
        """The endpoint and the body that a plain prompt stands for."""
        if found.url is not None:
            return found.url, found.body
        system = self._options.system
        body = dict(found.body)
        if not self._model.tokenizer.chat_template:
            if system is not None:
                told = (
                    f"the system prompt {shown(system)} needs a chat template, and {self._options.name} has none; "
                    f"leave it out, or use an instruct checkpoint"
                )
                raise ApiError(400, told)
            return TEXT, body
        prompt = {"role": "user", "content": body.pop("prompt")}
        first = [] if system is None else [{"role": "system", "content": system}]
        return CHAT, body | {"messages": [*first, prompt]}

    def _name(self, body: Mapping[str, Any]) -> str:
        known = (self._options.name, self._options.model, *self._options.aliases)
        name = body.get("model", known[0])
        if name not in known:
            told = (
                f"model={shown(name)}: this job's is {known[0]!r}; leave model out, or give the job "
                f"--alias {name if isinstance(name, str) else 'NAME'}"
            )
            raise ApiError(404, told, param="model", code="model_not_found")
        return known[0]

    def _own(self, request: Request, place: int, choice: int) -> Request:
        """With the job's options where the row has none, and random numbers that are the row's alone."""
        own, job = request.config.given(), self._options.config.given()
        more = {name: job[name] for name in _BESIDE if name in job and name not in own}
        if "seed" not in own | more:
            drawn = sha256(f"{self._options.seed} {place} {choice}".encode()).digest()
            more["seed"] = int.from_bytes(drawn[:8]) & LARGEST_SEED
        return replace(request, config=request.config.with_options(**more))

    def _answered(
        self, line: Line, custom_id: str | None, asked_for: tuple[str, Body, Work], finishes: Sequence[Finish]
    ) -> Record:
        url, wanted, work = asked_for
        _, answers = SHAPES[url]
        name, numbers = id_of(self._key, line.place), count()
        names = Names(lambda kind: f"{kind}{name}{next(numbers):02}", 0)
        # What was found in the cache depends on the rows before.
        same = [replace(finish, usage=replace(finish.usage, cached_tokens=0)) for finish in finishes]
        told: dict[str, Any] = answers(wanted, work, self._model.tokenizer, names).whole(same)
        if "dllm" in told:
            told["dllm"] |= {"statistics": [_statistics(finish) for finish in finishes]}
        return record(self._key, line, custom_id, 200, told)


def _statistics(finish: Finish) -> dict[str, Any]:
    """Those figures that are the same each time."""
    usage = finish.usage
    # Which of the modes that give this text was fastest is not.
    mode = usage.mode if usage.route is None else AUTO
    same = {"mode": mode, "seed": usage.seed, "cache": usage.cache, "numerics": usage.numerics}
    if usage.verdict is not None:
        same["verdict"] = usage.verdict
    changed = {} if usage.repairs is None else {"repairs": asdict(usage.repairs)}
    return {"finish_reason": finish.reason, "useful_tokens": usage.useful_tokens, **same, **changed}
