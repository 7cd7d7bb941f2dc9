"""The model of one worker, and what answers rows with it."""

from collections.abc import Callable

from dllm_plugins.jobs.answering import Answering
from dllm_plugins.jobs.folder import JobFolder
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.runner import Runner
from dllm_plugins.jobs.spread import own_device
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.models import load_model

#: Rows decoded together where what a row answers does not depend on it.
TOGETHER = 16


def runner_of(model: Model, options: JobOptions, key: str, plain: bool, together: int | None) -> Runner:
    """What answers a job's rows with a model.

    :param key: stands for the job, and `plain` for lines that are prompts as they stand.
    :param together: see :func:`~dllm_plugins.jobs.job.run_job`.
    """
    spec = model.denoiser.spec
    exact = spec.numerics.startswith("row-invariant")
    engine = model.engine(KeptPrefixes(spec.context) if exact else None)
    return Runner(engine, Answering(model, options, key, plain), together or (TOGETHER if exact else 1))


def facts_of(model: Model) -> dict[str, str]:
    """What all models that answer rows of a job have in common."""
    spec = model.denoiser.spec
    return {"model": spec.name, "numerics": spec.numerics, "weights": spec.weights}


class Local:
    """Answers rows in this process.

    :raises DllmError: if the model cannot be loaded.
    :raises JobError: if the job was begun with another one.
    """

    def __init__(self, job: JobFolder, options: JobOptions, together: int | None) -> None:
        self._model = load_model(options.model, **{**options.load, **own_device(options.load)})
        try:
            job.agree(facts_of(self._model))
        except BaseException:
            self._model.close()
            raise
        self._runner = runner_of(self._model, options, job.key, job.source.plain, together)

    @property
    def idle(self) -> bool:
        """Whether no row is under way."""
        return self._runner.idle

    @property
    def tokens(self) -> int:
        """How many were made so far."""
        return self._runner.tokens

    def step(self, take: Callable[[], Line | None]) -> list[Record]:
        """Let rows join, and make one pass."""
        return self._runner.step(take)

    def close(self) -> None:
        """Give the model back."""
        self._model.close()
