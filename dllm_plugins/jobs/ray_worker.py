"""What a worker of Ray does: it has a model of its own, and is handed rows. It sees no file of the job's."""

from collections import deque
from collections.abc import Sequence

from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.local import facts_of
from dllm_plugins.jobs.local import runner_of
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.runner import Runner
from dllm_plugins.models import load_model


class RayWorker:
    """An actor; one call at a time."""

    def __init__(self, options: JobOptions, key: str, plain: bool, together: int | None) -> None:
        self._options = options
        self._job = key, plain, together
        self._runner: Runner | None = None
        self._waiting: deque[Line] = deque()

    def load(self) -> dict[str, str]:
        """Load the model. Not done where the actor is made: what is raised there reaches nobody as it is.

        :returns: what all workers have in common.
        :raises DllmError: if it cannot be loaded.
        """
        model = load_model(self._options.model, **self._options.load)
        self._runner = runner_of(model, self._options, *self._job)
        return facts_of(model)

    def work(self, lines: Sequence[Line]) -> tuple[list[Record], int]:
        """Take rows over, and make passes until one at least is answered.

        :returns: the rows of the output, and all tokens that were made so far.
        """
        assert self._runner is not None, "it was loaded"
        self._waiting.extend(lines)
        done: list[Record] = []
        while not done and not (self._runner.idle and not self._waiting):
            done = self._runner.step(lambda: self._waiting.popleft() if self._waiting else None)
        return done, self._runner.tokens
