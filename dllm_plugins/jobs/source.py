"""The input of a job: read once from end to end, and remembered by the places where its shards begin."""

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dllm_plugins.errors import JobError
from dllm_plugins.jobs.lines import Line
from dllm_plugins.jobs.lines import lines_of

#: A large input has so many shards, or up to twice that: few files, yet many workers end at about the same time.
SHARDS = 1024
#: Rows of the smallest shards.
FEWEST = 4


@dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive rows.

    :param place: of the first row among all.
    :param number: of its line in the file.
    :param offset: of that line, in bytes.
    """

    place: int
    rows: int
    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class Source:
    """The input, by what it holds.

    :param sha256: of the file, in hexadecimal.
    """

    path: Path
    sha256: str
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(shard.rows for shard in self.shards)

    @property
    def plain(self) -> bool:
        """Whether each line is a prompt as it stands."""
        return self.path.suffix.lower() == ".txt"

    def lines(self, shard: Shard) -> Iterator[Line]:
        """The rows of a shard, read as they are asked for.

        :raises JobError: if they cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(shard.offset)
                yield from islice(lines_of(file, shard.place, shard.number, shard.offset), shard.rows)
        except OSError as error:
            raise unreadable(self.path, error) from error


def unreadable(path: Path, error: OSError) -> JobError:
    """What is said of an input that cannot be read."""
    return JobError(f"{path} cannot be read ({error}); the job goes on where it was once it can, by the same command")


def changed(path: Path, folder: Path) -> JobError:
    """What is said of an input that is not what it was when the job was begun.

    :param folder: of the job.
    """
    return JobError(
        f"{path} was changed while the job ran, so that answers may belong to other rows; put the old file back, or "
        f"remove {folder} to begin anew"
    )


def digest(path: Path) -> str:
    """The sha256 of the input.

    :raises JobError: if it cannot be read.
    """
    if not path.is_file():
        raise JobError(
            f"there is no file {str(path)!r} in {Path.cwd()}; a job reads its input again when it is resumed, so that "
            f"a pipe will not do either"
        )
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def scan(path: Path) -> "tuple[tuple[Shard, ...], array[int]]":
    """Find rows and shards.

    :returns: the shards, and for each row 64 bits that stand for its `custom_id`: a million rows need 8 MB.
    :raises JobError: if the file cannot be read.
    """
    marks: list[Line] = []
    names, stride = array("Q"), FEWEST
    try:
        with path.open("rb") as file:
            for line in lines_of(file):
                if line.place % stride == 0:
                    # Without the text, which may be long.
                    marks.append(Line(line.place, line.number, line.offset, b""))
                if len(marks) > 2 * SHARDS:
                    marks, stride = marks[::2], 2 * stride
                names.append(_name(line))
    except OSError as error:
        raise unreadable(path, error) from error
    ends = [mark.place for mark in marks[1:]] + [len(names)]
    # Without rows there is an end, and no beginning.
    pairs = zip(marks, ends, strict=bool(marks))
    return tuple(Shard(mark.place, end - mark.place, mark.number, mark.offset) for mark, end in pairs), names


def _name(line: Line) -> int:
    """Stands for the `custom_id` of a row, and for the row itself where it has none."""
    own = b"\0%d" % line.place
    if b'"custom_id"' in line.text:
        try:
            found = json.loads(line.text)
        except (ValueError, RecursionError):
            found = None
        name = found.get("custom_id") if isinstance(found, dict) else None
        if isinstance(name, str):
            own = name.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(own, digest_size=8).digest())
