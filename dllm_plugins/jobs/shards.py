"""Rows of a job for one worker: it takes shards that nobody else works on, and keeps what it answers."""

import time
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from filelock import FileLock
from filelock import Timeout

from dllm_plugins.jobs.folder import JobFolder
from dllm_plugins.jobs.journal import Journal
from dllm_plugins.jobs.journal import Record
from dllm_plugins.jobs.journal import full
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.source import changed

#: Seconds until shards that others work on are tried again.
PATIENCE = 0.5


@dataclass(eq=False, slots=True)
class Lease:
    """A shard that this worker holds.

    :param lines: its rows that are not answered yet.
    :param left: how many of them are not in the journal, of which so many were `taken`.
    """

    number: int
    lock: FileLock
    journal: Journal
    lines: Iterator[Line]
    left: int
    taken: int = 0


class Shards:
    """The shards of a job as one worker sees them."""

    def __init__(self, job: JobFolder) -> None:
        self.job = job
        # Eight bytes a row, of which those are read that are asked for.
        self._firsts = np.load(job.firsts, mmap_mode="r") if job.firsts.exists() else None
        done = job.all_done()
        self._open = [number for number in range(len(job.source.shards)) if number not in done]
        self._leases: list[Lease] = []
        self._of: dict[int, Lease] = {}
        self._tried = float("-inf")

    def take(self) -> Line | None:
        """The next row to answer; None if there is none at present.

        :raises JobError: if its shard cannot be read or written.
        """
        while True:
            for lease in self._leases:
                line = next(lease.lines, None)
                if line is not None:
                    self._of[line.place] = lease
                    lease.taken += 1
                    return self._named(line)
                if lease.taken != lease.left:
                    raise changed(self.job.source.path, self.job.folder)
            if not self._claim():
                return None

    def _named(self, line: Line) -> Line:
        first = line.place if self._firsts is None else int(self._firsts[line.place])
        return line if first == line.place else replace(line, first=first)

    def keep(self, answered: Sequence[Record]) -> None:
        """Write answers down.

        :raises JobError: if that cannot be done; the job can go on later from what was written before.
        """
        for lease in list(self._leases):
            own = [record for record in answered if self._of.get(record.place) is lease]
            if own:
                try:
                    lease.journal.append(own)
                except OSError as error:
                    raise full(lease.journal.path, error) from error
                lease.left -= len(own)
                lease.taken -= len(own)
                for record in own:
                    del self._of[record.place]
            if not lease.left:
                self._give_back(lease)

    @property
    def all_done(self) -> bool:
        """Whether every shard is, or the job itself."""
        if self._open and not self._leases:
            done = self.job.all_done()
            self._open = [number for number in self._open if number not in done]
        return not self._leases and (not self._open or self.job.finished)

    def close(self) -> None:
        """Let others have what this worker holds."""
        while self._leases:
            self._give_back(self._leases[-1])
        self._of.clear()

    def _claim(self) -> bool:
        """Take one more shard, if there is one that nobody holds."""
        if time.monotonic() - self._tried < PATIENCE:
            return False
        for number in list(self._open):
            if self.job.finished:
                break
            lock = FileLock(self.job.lock(number), timeout=0, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            except OSError as error:
                raise full(self.job.folder, error) from error
            self._open.remove(number)
            if self._begin(number, lock):
                return True
        self._tried = time.monotonic()
        return False

    def _begin(self, number: int, lock: FileLock) -> bool:
        """Go on with a shard whose lock is held; whether there is anything to do."""
        if self.job.done(number).exists() or self.job.finished:
            lock.release()
            return False
        shard = self.job.source.shards[number]
        try:
            journal = Journal(self.job.journal(number), self.job.owner(number))
        except OSError as error:
            lock.release()
            raise full(self.job.journal(number), error) from error
        known = frozenset(journal.places)
        lines = (line for line in self.job.source.lines(shard) if line.place not in known)
        lease = Lease(number, lock, journal, lines, shard.rows - len(known))
        self._leases.append(lease)
        if not lease.left:
            self._give_back(lease)
        return bool(lease.left)

    def _give_back(self, lease: Lease) -> None:
        self._leases.remove(lease)
        lease.journal.close()
        try:
            if not lease.left:
                lease.journal.path.rename(self.job.done(lease.number))
        except OSError as error:
            raise full(lease.journal.path, error) from error
        finally:
            lease.lock.release()

    def counted(self) -> int:
        """How many rows are answered, by whomever, as far as that is told by shards that are done and by one's own."""
        done = sum(self.job.source.shards[number].rows for number in self.job.all_done())
        return done + sum(len(lease.journal.places) for lease in self._leases)
