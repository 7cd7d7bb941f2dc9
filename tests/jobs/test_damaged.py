"""Folders of jobs that are not what they were: answers are never those of other rows, and what is not a job's stays."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dllm_plugins.errors import JobError
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job
from dllm_plugins.jobs.shards import Shards


@pytest.fixture(scope="module")
def half(source: Path, options: JobOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that ended early: one shard is done, another one begun."""
    target, real = tmp_path_factory.mktemp("half") / "out.jsonl", Shards.keep

    def keep(shards: Shards, answered: list[object]) -> None:
        real(shards, answered)  # type: ignore[arg-type]
        if shards.counted() > 4 and shards.job.all_done():
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shards, "keep", keep)
        with pytest.raises(KeyboardInterrupt):
            run_job(source, target, options, together=1)
    folder = target.with_name("out.jsonl.job")
    assert (folder / "0000.done").exists() and (folder / "0001.journal").stat().st_size
    return folder


@pytest.fixture
def folder(half: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(half, tmp_path / "out.jsonl.job")


def _other_job(folder: Path) -> None:
    """Checksums are right."""
    import zlib

    place, status, _, line = (folder / "0001.journal").read_bytes().splitlines()[0].split(b" ", 3)
    line = line.replace(b'"batch_req_', b'"batch_req_0')
    (folder / "0001.journal").write_bytes(b"%s %s %08x %s\n" % (place, status, zlib.crc32(line), line))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: shutil.copy(folder / "0000.done", folder / "0001.journal"),
        _other_job,
        lambda folder: (folder / "0001.journal").write_bytes(b"something else\n" * 9),
        lambda folder: (folder / "firsts.npy").write_bytes(b""),
        lambda folder: (folder / "firsts.npy").unlink(),
        lambda folder: (folder / "0000.done").unlink(),
    ],
    ids=["another shard", "another job", "another file", "no firsts", "firsts gone", "a shard gone"],
)
def test_what_is_damaged_is_answered_again(
    damage: Callable[[Path], object], folder: Path, source: Path, options: JobOptions, expected: bytes
) -> None:
    damage(folder)
    target = folder.with_name("out.jsonl")
    run_job(source, target, options)
    assert target.read_bytes() == expected
    assert not folder.exists()


def test_a_shard_that_was_done_and_is_another_one(
    folder: Path, source: Path, options: JobOptions, expected: bytes
) -> None:
    target = folder.with_name("out.jsonl")
    (folder / "0000.done").write_bytes((folder / "0001.journal").read_bytes())
    with pytest.raises(JobError, match=r"0000\.journal is damaged.*the same command"):
        run_job(source, target, options)
    run_job(source, target, options)
    assert target.read_bytes() == expected


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"told": {}, "shards": [[1]], "firsts": null}'])
def test_a_state_that_is_none(state: str, folder: Path, source: Path, options: JobOptions) -> None:
    (folder / "job.json").write_text(state)
    with pytest.raises(JobError, match=r"job\.json cannot be read \(.+\); remove"):
        run_job(source, folder.with_name("out.jsonl"), options)
    assert (folder / "0000.done").exists()


def test_what_is_not_a_jobs_is_not_removed(source: Path, options: JobOptions, folder: Path, expected: bytes) -> None:
    """Neither in a folder of that name, nor in that of a job that ends, nor a file of that name."""
    target = folder.with_name("out.jsonl")
    (folder / "notes.done").write_text("mine")
    run_job(source, target, options)
    assert target.read_bytes() == expected
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("notes.done", "mine")]
    target.unlink()
    with pytest.raises(JobError, match=r"notes\.done is where the job would be kept"):
        run_job(source, target, options)
    (folder / "notes.done").rename(target.with_name("notes"))
    folder.rmdir()
    target.with_name("notes").rename(folder)
    with pytest.raises(JobError, match=r"out\.jsonl\.job is where the job would be kept"):
        run_job(source, target, options)
    assert folder.read_text() == "mine"
