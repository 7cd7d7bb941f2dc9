"""A job on a cluster; run by the tests of replicas, on theirs."""

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dllm_plugins.errors import CheckpointError
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import ray_pool
from dllm_plugins.jobs import run_job
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.ray_worker import RayWorker

from ..serving.replicas import cluster

FLAG = "DLLM_TEST_FLAG"


class Killed(RayWorker):
    """Dies of the first rows that it gets; the next one does not."""

    def work(self, lines: Sequence[Line]) -> tuple[list[Record], int]:
        """See RayWorker."""
        flag = Path(self._options.load["denoiser"]).with_name("killed")
        if lines and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().work(lines)


def test_two_workers_write_the_same_though_one_dies(
    source: Path, options: JobOptions, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.start()
    monkeypatch.setattr(ray_pool, "RayWorker", Killed)
    target = tmp_path / "out.jsonl"
    run_job(source, target, options, ray="local", workers=2, together=2)
    assert Path(options.load["denoiser"]).with_name("killed").exists()
    assert target.read_bytes() == expected


def test_what_is_wrong_with_a_model_is_said_as_elsewhere(source: Path, options: JobOptions, tmp_path: Path) -> None:
    cluster.start()
    wrong = replace(options, load={**options.load, "base": "/no/such/folder"})
    with pytest.raises(CheckpointError, match="no/such/folder"):
        run_job(source, tmp_path / "out.jsonl", wrong, ray="local", workers=1)
