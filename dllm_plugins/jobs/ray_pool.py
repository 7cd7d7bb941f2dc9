"""Workers of a Ray cluster, an actor on each device; those that die are replaced, and their rows begun again.

Actors, not Ray Data: rows are handed out as others are answered and written down one by one, so that a job that is
killed loses no block of them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import JobError
from dllm_plugins.jobs.folder import JobFolder
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.local import TOGETHER
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.output import failure
from dllm_plugins.jobs.ray_worker import RayWorker
from dllm_plugins.jobs.shards import PATIENCE
from dllm_plugins.libraries.extras import need

#: How often a worker may die while it loads, or with the same single row, before that is held against it.
DEATHS = 3


@dataclass(eq=False, slots=True)
class _Actor:
    """A worker.

    :param call: what it is doing; None for nothing.
    :param lines: the rows that it has, by their places.
    """

    handle: Any
    call: Any
    loaded: bool = False
    lines: dict[int, Line] = field(default_factory=dict)
    tokens: int = 0


class RayPool:
    """Answers rows with a cluster.

    :param address: of the cluster, "auto" or "local".
    :param workers: how many; None for as many as there are devices.
    :raises MissingExtraError: without Ray.
    :raises JobError: if there is no cluster.
    """

    def __init__(
        self, job: JobFolder, options: JobOptions, together: int | None, address: str, workers: int | None
    ) -> None:
        self._ray = need("ray", "a job on Ray")
        self._job = job
        self._arguments = options, job.key, job.source.plain, together
        # So many again wait with each worker for their turn.
        self._room = 2 * (together or TOGETHER)
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect(address)
        count, resources = self._devices(workers)
        self._remote = self._ray.remote(**resources)(RayWorker)
        self._suspects: deque[Line] = deque()
        self._deaths: dict[int | None, int] = {}
        self._past_tokens = 0
        self._actors = [self._started() for _ in range(count)]

    @property
    def idle(self) -> bool:
        """Whether no row is under way."""
        return not self._suspects and not any(actor.lines for actor in self._actors)

    @property
    def tokens(self) -> int:
        """How many were made so far."""
        return self._past_tokens + sum(actor.tokens for actor in self._actors)

    def step(self, take: Callable[[], Line | None]) -> list[Record]:
        """Hand out rows, and wait a moment for answers."""
        for actor in self._actors:
            if actor.call is None:
                self._hand_out(actor, take)
        calls = {actor.call: actor for actor in self._actors if actor.call is not None}
        if not calls:
            return []
        self._ray.wait(list(calls), timeout=PATIENCE)
        ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [record for call in ready for record in self._told(calls[call])]

    def close(self) -> None:
        """End the workers, and leave the cluster if this process was not in it before."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        if self._own:
            self._ray.shutdown()

    def _connect(self, address: str) -> None:
        try:
            # Without a dashboard, and without a word: the job speaks for itself.
            local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            self._ray.init(address=address, logging_level="ERROR", log_to_driver=False, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise JobError(f"there is no Ray cluster at {address!r}: {error}") from error

    def _devices(self, workers: int | None) -> tuple[int, dict[str, Any]]:
        """How many workers there are, and what Ray gives each."""
        found = self._ray.cluster_resources()
        if found.get("GPU", 0) >= 1:
            return workers or int(found["GPU"]), {"num_gpus": 1}
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        count = workers or len(nodes)
        # As many threads each as its node has for it.
        return count, {"num_cpus": max(1, int(min(nodes) // -(-count // len(nodes))))}

    def _started(self) -> _Actor:
        handle = self._remote.remote(*self._arguments)
        return _Actor(handle, handle.load.remote())

    def _hand_out(self, actor: _Actor, take: Callable[[], Line | None]) -> None:
        """Give a worker that waits for a call more rows.

        Of rows that were with a worker that died, one alone: the next death tells which of them it was.
        """
        new: list[Line] = []
        if self._suspects:
            new = [] if actor.lines else [self._suspects.popleft()]
        else:
            while len(actor.lines) + len(new) < self._room and (line := take()) is not None:
                new.append(line)
        actor.lines |= {line.place: line for line in new}
        if actor.lines:
            actor.call = actor.handle.work.remote(new)

    def _told(self, actor: _Actor) -> list[Record]:
        """What came of a call."""
        exceptions = self._ray.exceptions
        try:
            found = self._ray.get(actor.call)
        except exceptions.RayTaskError as error:
            ours = isinstance(error.cause, DllmError)
            raise (error.cause if ours else JobError(f"a worker of Ray failed: {error}")) from error
        except exceptions.RayError as error:
            return self._replaced(actor, error)
        actor.call = None
        if not actor.loaded:
            self._job.agree(found)
            actor.loaded = True
            self._deaths.pop(None, None)
            return []
        records: list[Record]
        records, actor.tokens = found
        for record in records:
            self._deaths.pop(actor.lines.pop(record.place).place, None)
        return records

    def _replaced(self, actor: _Actor, error: Exception) -> list[Record]:
        """Start a worker in place of one that died; its rows are begun again, but for one that has killed several."""
        self._past_tokens += actor.tokens
        self._actors[self._actors.index(actor)] = self._started()
        lines = list(actor.lines.values())
        blamed = None if not actor.loaded else lines[0].place if len(lines) == 1 else -1
        deaths = self._deaths[blamed] = self._deaths.get(blamed, 0) + 1
        if deaths < DEATHS or blamed == -1:
            self._suspects.extend(lines)
            return []
        if blamed is None:
            raise JobError(f"workers of Ray die while they load the model: {error}")
        told = JobError(f"{deaths} workers died while they answered this row alone; report it, with this row")
        return [failure(self._job.key, lines[0], self._job.source.plain, told)]
