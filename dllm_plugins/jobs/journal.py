"""The answers of a shard, appended one by one to a file that a kill can only leave short.

A record is a line: the row's place, its status, a checksum, and the line of the output. What follows the last whole
record was being written when its process died; it is cut off, and its rows are answered again.
"""

import os
import re
import zlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from dllm_plugins.errors import JobError

_RECORD = re.compile(rb"(\d+) (\d{3}) ([0-9a-f]{8}) ([^\n]*)\n")


@dataclass(frozen=True, slots=True)
class Record:
    """The answer of a row.

    :param place: of the row among all.
    :param status: as an HTTP status; 200 for an answer, all others for rows that failed.
    :param line: of the output, without its end.
    """

    place: int
    status: int
    line: bytes

    @property
    def written(self) -> bytes:
        """How the journal has it."""
        return b"%d %03d %08x %s\n" % (self.place, self.status, zlib.crc32(self.line), self.line)


def records(path: Path) -> Iterator[Record]:
    """Every whole record from the beginning; none where there is no file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        for text in file:
            found = _RECORD.fullmatch(text)
            if found is None or int(found[3], 16) != zlib.crc32(found[4]):
                return
            yield Record(int(found[1]), int(found[2]), found[4])


class Journal:
    """The journal of a shard, open for more; whoever opens it holds the shard's lock.

    :param own: whether a record is of this shard; the first that is not ends the journal, as a torn one does.
    """

    def __init__(self, path: Path, own: Callable[[Record], bool]) -> None:
        self.path = path
        self.places: set[int] = set()
        self._end = 0
        for record in takewhile(own, records(path)):
            self.places.add(record.place)
            self._end += len(record.written)
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | getattr(os, "O_BINARY", 0), 0o644)
        os.ftruncate(self._file, self._end)
        # A new file is there for good once its folder says so.
        sync_folder(path.parent)

    def append(self, new: Sequence[Record]) -> None:
        """Add records; once this returns, no kill and no loss of power takes them away.

        :raises OSError: if they cannot be written, all of them; the journal is as it was.
        """
        text = memoryview(b"".join(record.written for record in new))
        try:
            os.lseek(self._file, self._end, os.SEEK_SET)
            left = text
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except BaseException:
            # Should this fail as well, the next one to open the file cuts it.
            with suppress(OSError):
                os.ftruncate(self._file, self._end)
            raise
        self._end += len(text)
        self.places.update(record.place for record in new)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def full(path: Path, error: OSError) -> JobError:
    """What is said where answers cannot be written."""
    return JobError(
        f"answers cannot be written to {path} ({error}); none that was is lost: make room, and give the same command "
        f"again"
    )


def sync_folder(folder: Path) -> None:
    """Make sure that what a folder holds is on the disk, where the system can say so of folders."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
