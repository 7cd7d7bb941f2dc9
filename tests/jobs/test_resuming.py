"""Jobs that are killed, broken off or meant otherwise when they are begun again."""

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins.errors import JobError
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job
from dllm_plugins.jobs.journal import Journal
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.journal import records
from dllm_plugins.jobs.opening import open_job
from dllm_plugins.jobs.source import FEWEST
from dllm_plugins.jobs.source import SHARDS
from dllm_plugins.jobs.source import Source
from dllm_plugins.jobs.source import scan

from .. import forked

PROGRAM = """
import json, os, signal, sys, time
from dllm_plugins import SamplingConfig
from dllm_plugins.jobs import JobOptions, run_job
source, target, load, disturbed = sys.argv[1:]
exec(disturbed)
config = SamplingConfig(max_new_tokens=7, draft_length=2)
run_job(source, target, JobOptions(load=json.loads(load), config=config), together=3)
"""
#: Every action on the disk counts; in the middle of the last one the process dies.
KILLED = """
left = {}
def counted(real):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            if real is write:
                real(arguments[0], bytes(arguments[1])[:len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return call
write = os.write
for name in ("write", "fsync", "ftruncate", "rename", "replace", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
"""
#: Passes take a while.
SLOW = """
from dllm_plugins.engine import Engine
step = Engine.step
def slow(self):
    time.sleep(0.02)
    return step(self)
Engine.step = slow
"""


def _start(source: Path, target: Path, options: JobOptions, disturbed: str) -> Any:
    out = target.with_name(f"said-{time.monotonic_ns()}")
    out.mkdir()
    arguments = (str(source), str(target), json.dumps(dict(options.load)), disturbed)
    return forked.start(PROGRAM, *arguments, out=str(out))


def test_killed_at_one_action_after_another(source: Path, options: JobOptions, expected: bytes, tmp_path: Path) -> None:
    """Until it comes to its end: nothing is lost, doubled or torn, and nothing is left over."""
    target, ends = tmp_path / "out.jsonl", list[int | None]()
    while 0 not in ends:
        process = _start(source, target, options, KILLED.format(3 * len(ends)))
        process.join()
        ends.append(process.exitcode)
        assert not target.exists() or target.read_bytes() == expected
    assert set(ends[:-1]) == {-signal.SIGKILL} and len(ends) > 5
    assert target.read_bytes() == expected
    assert not target.with_name("out.jsonl.job").exists()


def test_workers_share_a_job(source: Path, options: JobOptions, expected: bytes, tmp_path: Path) -> None:
    """Three processes with the same command; one is killed, and the others make up for it."""
    target = tmp_path / "out.jsonl"
    processes = [_start(source, target, options, SLOW) for _ in range(3)]
    while not list(tmp_path.glob("out.jsonl.job/*.journal")):
        time.sleep(0.01)
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes[1:]] == [0, 0]
    assert target.read_bytes() == expected
    assert not target.with_name("out.jsonl.job").exists()


def test_a_full_disk_ends_the_job_for_now(
    source: Path, options: JobOptions, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even in the middle of a record, which the next run must not take for one."""
    target, real, room = tmp_path / "out.jsonl", os.write, 3000

    def write(handle: int, text: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(handle, text[:room])
        room -= done
        return done

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(JobError, match=r"No space left on device.*the same command"):
            run_job(source, target, options)
    assert not target.exists()
    kept = sum(1 for path in tmp_path.glob("out.jsonl.job/0*") for _ in records(path))
    assert 0 < kept < 10
    run_job(source, target, options)
    assert target.read_bytes() == expected


def test_a_torn_journal_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "0000.journal"
    whole = [Record(3, 200, b'{"a": 1}'), Record(1, 400, b"{}")]
    text = b"".join(record.written for record in whole)
    for torn in (
        b"2 200 0000",
        Record(2, 200, b"{}").written[:-1],
        b"2 200 00000000 {}\n",
        b"\0" * 50,
        Record(9, 200, b"{}").written,
    ):
        path.write_bytes(text + torn)
        journal = Journal(path, lambda record: record.place != 9)
        assert journal.places == {1, 3}
        journal.append([Record(2, 200, b"{}")])
        journal.close()
        assert list(records(path)) == [*whole, Record(2, 200, b"{}")]


def test_another_input_or_other_options_are_refused(source: Path, options: JobOptions, tmp_path: Path) -> None:
    own, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    own.write_bytes(source.read_bytes())
    assert not open_job(own, target, options).finished
    other = JobOptions(load=options.load, config=options.config.with_options(temperature=0.5), seed=2)
    with pytest.raises(JobError, match=r"option temperature was not given and is 0\.5; seed was 0 and is 2"):
        run_job(own, target, other)
    own.write_text('"another"')
    with pytest.raises(JobError, match=r"begun otherwise: input was [0-9a-f]+ and is"):
        run_job(own, target, options)
    with pytest.raises(JobError, match="numerics was row-invariant and is approximate"):
        job = open_job(source, tmp_path / "more.jsonl", options)
        job.agree({"numerics": "row-invariant"})
        job.agree({"numerics": "approximate"})


def test_a_job_that_is_done_is_not_done_again(
    source: Path, options: JobOptions, expected: bytes, tmp_path: Path
) -> None:
    """Not even where it was killed before its folder was gone; what is there of others is not touched."""
    target = tmp_path / "out.jsonl"
    target.write_bytes(expected)
    target.with_name("out.jsonl.job").mkdir()
    assert run_job(source, target, options).rows is None
    assert not target.with_name("out.jsonl.job").exists()
    for taken in (b"", b"notes", expected[:-1].rpartition(b"\n")[0], expected * 2):
        target.write_bytes(taken)
        with pytest.raises(JobError, match="is there already"):
            run_job(source, target, options)
        assert target.read_bytes() == taken


def test_an_input_that_changes_meanwhile(source: Path, options: JobOptions, tmp_path: Path) -> None:
    own, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    own.write_bytes(source.read_bytes())

    def change(_rows: int, _done: int) -> Any:
        own.write_text('"shorter"')
        raise AssertionError("begun")

    with pytest.raises(AssertionError, match="begun"):
        run_job(own, target, options, progress=change)
    own.write_bytes(source.read_bytes().replace(b"the end", b"The end"))
    with pytest.raises(JobError, match="begun otherwise"):
        run_job(own, target, options)
    assert not target.exists()


@pytest.mark.parametrize(
    ("source_name", "target_name", "told"),
    [
        ("missing.jsonl", "out.jsonl", "there is no file"),
        ("in.jsonl", "in.jsonl", "both as input and as output"),
        ("in.jsonl", "no/such/out.jsonl", "is no folder"),
        ("in.jsonl", ".", "is a folder"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, source_name: str, target_name: str, told: str) -> None:
    (tmp_path / "in.jsonl").write_text('"x"')
    with pytest.raises(JobError, match=told):
        run_job(tmp_path / source_name, tmp_path / target_name)


def test_a_large_input_has_few_shards(tmp_path: Path) -> None:
    """Which hold all of its rows, each once, at the right lines."""
    path = tmp_path / "in.jsonl"
    rows = 2 * SHARDS * FEWEST + 3
    path.write_text("".join(f'"{place}"\n\n' if place % 3 == 0 else f'"{place}"\n' for place in range(rows)))
    shards, _ = scan(path)
    assert SHARDS <= len(shards) <= 2 * SHARDS
    found = [line for shard in shards for line in Source(path, "", shards).lines(shard)]
    assert [line.text for line in found] == [b'"%d"' % place for place in range(rows)]
    lines = path.read_bytes().split(b"\n")
    assert all(lines[line.number - 1] == line.text for line in found)
