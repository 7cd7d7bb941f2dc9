"""Runs a job to its end in this process, beside whatever other processes work on it."""

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllm_plugins.errors import OptionError
from dllm_plugins.jobs.answering import Answering
from dllm_plugins.jobs.folder import Job
from dllm_plugins.jobs.folder import remove
from dllm_plugins.jobs.opening import open_job
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.progress import Progress
from dllm_plugins.jobs.progress import silent
from dllm_plugins.jobs.runner import Runner
from dllm_plugins.jobs.shards import PATIENCE
from dllm_plugins.jobs.shards import Shards
from dllm_plugins.jobs.spread import own_device
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.models import load_model

#: Rows decoded together where what a row answers does not depend on it.
TOGETHER = 16


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a job.

    :param rows: of the output; None if another process put it together, now or earlier.
    """

    target: Path
    rows: int | None = None
    failed: int | None = None


def run_job(
    source: str | Path,
    target: str | Path,
    options: JobOptions | None = None,
    *,
    together: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Answer every row of a file, and write the answers to another in the order of the rows.

    The same call goes on where an earlier one was killed. Any number of processes that see the same files may make it
    at once, and share the work.

    :param together: rows decoded together; if not given, 16 where numerics are row-invariant, and one by one where an
        answer could depend on its company.
    :raises JobError: if the job cannot begin or go on, such as with a full disk; nothing that was answered is lost.
    :raises DllmError: if the model cannot be loaded.
    """
    if together is not None and together < 1:
        raise OptionError(f"together={together}: give a number of rows above 0")
    chosen = options or JobOptions()
    job = open_job(Path(source), Path(target), chosen)
    if job.finished:
        return Report(job.target)
    if job.source.rows:
        model = load_model(chosen.model, **{**chosen.load, **own_device(chosen.load)})
        try:
            _work(job, model, chosen, together, progress)
        finally:
            model.close()
    counts = job.assemble()
    if counts is None:
        # Of a lock that was taken in the last moment.
        remove(job.folder)
        return Report(job.target)
    return Report(job.target, *counts)


def _work(job: Job, model: Model, options: JobOptions, together: int | None, progress: Progress) -> None:
    spec = model.denoiser.spec
    job.agree({"model": spec.name, "numerics": spec.numerics, "weights": spec.weights})
    exact = is_exact(model)
    engine = model.engine(KeptPrefixes(spec.context) if exact else None)
    runner = Runner(engine, answering(job, model, options), together or (TOGETHER if exact else 1))
    shards, told = Shards(job), float("-inf")
    with closing(shards), progress(job.source.rows, shards.counted()) as report:
        while not (runner.idle and shards.all_done):
            shards.keep(runner.step(shards.take))
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                report(shards.counted(), runner.tokens)
            if runner.idle and not shards.all_done:
                # Others work on what is left; should one of them die, it is taken over.
                time.sleep(PATIENCE)
        report(shards.counted(), runner.tokens)


def is_exact(model: Model) -> bool:
    """Whether a row's answer cannot depend on what else is decoded."""
    return model.denoiser.spec.numerics.startswith("row-invariant")


def answering(job: Job, model: Model, options: JobOptions) -> Answering:
    """Reads the job's rows, and writes what becomes of them."""
    firsts = np.load(job.firsts, mmap_mode="r") if job.firsts.exists() else None
    return Answering(model, options, job.key, job.source.plain, firsts)
