"""What there is of a job on the disk before its output: a folder `OUT.job` beside it.

`job.json` says which job it is, and where its shards begin. `NNNN.journal` is what there is of a shard, `NNNN.done` all
of it; `NNNN.lock` is held by whoever works on it.
"""

import os
import re
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path

from dllm_plugins.errors import JobError
from dllm_plugins.files.whole import alone
from dllm_plugins.files.whole import whole
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.journal import full
from dllm_plugins.jobs.journal import records
from dllm_plugins.jobs.journal import sync_folder
from dllm_plugins.jobs.source import Source
from dllm_plugins.jobs.source import changed
from dllm_plugins.jobs.source import digest
from dllm_plugins.jobs.stated import compare
from dllm_plugins.jobs.stated import read
from dllm_plugins.jobs.stated import write

#: What a job's folder holds, and what a kill may leave of it.
_OURS = re.compile(
    r"\d{4,}\.(journal|done|lock)|(job|model)\.json|firsts\.npy|\.(job\.json|model\.json|firsts\.npy)\.(lock|part).*"
)


def id_of(key: str, place: int) -> str:
    """A name of a row that no row of another job has.

    :param key: stands for the job.
    """
    return sha256(f"{key} {place}".encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A job on the disk.

    :param target: the output.
    :param key: stands for the input and the options.
    """

    source: Source
    target: Path
    key: str

    @property
    def folder(self) -> Path:
        """Where its state is."""
        return folder_of(self.target)

    @property
    def firsts(self) -> Path:
        """For each row the first one that has its `custom_id`; there if any comes twice."""
        return firsts_of(self.folder)

    def journal(self, shard: int) -> Path:
        """What there is of a shard that is not done."""
        return self.folder / f"{shard:04}.journal"

    def done(self, shard: int) -> Path:
        """All of a shard."""
        return self.folder / f"{shard:04}.done"

    def lock(self, shard: int) -> Path:
        """Held by whoever works on a shard."""
        return self.folder / f"{shard:04}.lock"

    def all_done(self) -> set[int]:
        """The shards that are."""
        there = {path.name for path in self.folder.glob("*.done")}
        return {number for number in range(len(self.source.shards)) if self.done(number).name in there}

    def owner(self, shard: int) -> Callable[[Record], bool]:
        """What tells records of a shard from those of other shards and jobs."""
        first, rows = self.source.shards[shard].place, self.source.shards[shard].rows

        def own(record: Record) -> bool:
            name = f'{{"id": "batch_req_{id_of(self.key, record.place)}"'
            return first <= record.place < first + rows and record.line.startswith(name.encode())

        return own

    @property
    def finished(self) -> bool:
        """Whether the output is there."""
        return not state_of(self.folder).exists()

    def agree(self, facts: Mapping[str, str]) -> None:
        """Make sure that all of the job's answers come of one model, computed alike.

        :param facts: what is known of it once it is loaded.
        :raises JobError: if the model that began the job was another.
        """
        place = self.folder / "model.json"
        with alone(place):
            if not place.exists():
                write(place, dict(facts))
            compare(read(place), facts, self.folder)

    def assemble(self) -> tuple[int, int] | None:
        """Put the output together of all shards, which are done, and remove the folder.

        :returns: its rows, and how many of them failed; None if somebody else did it.
        :raises JobError: if the input is not what it was, or there is no room.
        """
        with alone(self.target):
            if self.finished:
                return None
            if digest(self.source.path) != self.source.sha256:
                raise changed(self.source.path, self.folder)
            try:
                with whole(self.target) as part:
                    counts = self._write_output(part)
                sync_folder(self.target.parent)
            except OSError as error:
                raise full(self.target, error) from error
            remove(self.folder)
            return counts

    def _write_output(self, part: Path) -> tuple[int, int]:
        failed = 0
        with part.open("wb") as file:
            for number, shard in enumerate(self.source.shards):
                own = takewhile(self.owner(number), records(self.done(number)))
                found = {record.place: record for record in own}
                if len(found) != shard.rows:
                    raise self._damaged(number, len(found), shard.rows)
                for _, record in sorted(found.items()):
                    file.write(record.line + b"\n")
                    failed += record.status != 200
            file.flush()
            os.fsync(file.fileno())
        return self.source.rows, failed

    def _damaged(self, shard: int, found: int, rows: int) -> JobError:
        path = self.done(shard).rename(self.journal(shard))
        return JobError(f"{path} is damaged: it holds {found} of {rows} rows; the same command answers the others")


def folder_of(target: Path) -> Path:
    """Where the state of the job is whose output this is."""
    return target.with_name(f"{target.name}.job")


def state_of(folder: Path) -> Path:
    """Says which job it is; gone when the output is there."""
    return folder / "job.json"


def firsts_of(folder: Path) -> Path:
    """See :attr:`JobFolder.firsts`."""
    return folder / "firsts.npy"


def check_folder(folder: Path) -> None:
    """Make sure that where a job is to begin there is nothing but what a kill left of another.

    :raises JobError: if there is.
    """
    strange = [folder] if folder.exists() and not folder.is_dir() else []
    strange += [path for path in folder.glob("*") if not _OURS.fullmatch(path.name)]
    if strange:
        raise JobError(f"{strange[0]} is where the job would be kept; move it away, or name another output")


def remove(folder: Path) -> None:
    """Remove a job's folder, of which a kill may leave a part that says nothing any more.

    What is not a job's is left there.
    """
    state_of(folder).unlink(missing_ok=True)
    for path in folder.glob("*"):
        if _OURS.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):
        folder.rmdir()
