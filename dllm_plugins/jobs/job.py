"""Runs a job to its end in this process, beside whatever other processes work on it."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dllm_plugins.errors import OptionError
from dllm_plugins.jobs.folder import JobFolder
from dllm_plugins.jobs.folder import remove
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.local import Local
from dllm_plugins.jobs.opening import open_job
from dllm_plugins.jobs.options import JobOptions
from dllm_plugins.jobs.progress import Progress
from dllm_plugins.jobs.progress import silent
from dllm_plugins.jobs.shards import PATIENCE
from dllm_plugins.jobs.shards import Shards


class Workers(Protocol):
    """Whatever answers rows."""

    @property
    def idle(self) -> bool:
        """Whether no row is under way."""

    @property
    def tokens(self) -> int:
        """How many were made so far."""

    def step(self, take: Callable[[], Line | None]) -> list[Record]:
        """Begin rows, go on with those under way for a moment, and tell those that are answered."""

    def close(self) -> None:
        """Give everything back."""


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
    ray: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Answer every row of a file, and write the answers to another in the order of the rows.

    The same call goes on where an earlier one was killed. Any number of processes that see the same files may make it
    at once, and share the work.

    :param together: rows decoded together by each model; if not given, 16 where numerics are row-invariant, and one by
        one where an answer could depend on its company.
    :param ray: the address of a Ray cluster whose workers answer the rows, "auto" for the one that this machine belongs
        to, "local" for one of this process; None to answer them in this process.
    :param workers: of Ray, a device each; if not given, as many as there are.
    :raises JobError: if the job cannot begin or go on, such as with a full disk; nothing that was answered is lost.
    :raises DllmError: if the model cannot be loaded.
    """
    for name, value in (("together", together), ("workers", workers)):
        if value is not None and value < 1:
            raise OptionError(f"{name}={value}: give a number above 0")
    if workers is not None and ray is None:
        raise OptionError(f"workers={workers} are Ray's; say with ray where it is, or start several processes yourself")
    chosen = options or JobOptions()
    job = open_job(Path(source), Path(target), chosen)
    if job.finished:
        return Report(job.target)
    if job.source.rows:
        with closing(_workers(job, chosen, together, ray, workers)) as found:
            _work(job, found, progress)
    counts = job.assemble()
    if counts is None:
        # Of a lock that was taken in the last moment.
        remove(job.folder)
        return Report(job.target)
    return Report(job.target, *counts)


def _workers(
    job: JobFolder, options: JobOptions, together: int | None, ray: str | None, workers: int | None
) -> Workers:
    if ray is None:
        return Local(job, options, together)
    from dllm_plugins.jobs.ray_pool import RayPool

    return RayPool(job, options, together, ray, workers)


def _work(job: JobFolder, workers: Workers, progress: Progress) -> None:
    shards, told = Shards(job), float("-inf")
    with closing(shards), progress(job.source.rows, shards.counted()) as report:
        while not (workers.idle and shards.all_done):
            shards.keep(workers.step(shards.take))
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                report(shards.counted(), workers.tokens)
            if workers.idle and not shards.all_done:
                # Others work on what is left; should one of them die, it is taken over.
                time.sleep(PATIENCE)
        report(shards.counted(), workers.tokens)
