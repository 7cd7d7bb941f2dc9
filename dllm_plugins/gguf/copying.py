"""Copying a part of a file without reading it where the system can."""

import os
from typing import BinaryIO

_PIECE = 1 << 30
#: Data that keep their place within a page can share blocks.
PAGE = 4096


def copy_range(source: BinaryIO, target: BinaryIO, start: int, size: int) -> None:
    """Append `size` bytes of `source` from `start` on to `target`.

    File systems that share blocks between files (Btrfs, XFS) do so for whole pages if both
    places are at the same distance from a page's start.

    :raises OSError: if there is no room, or the source became shorter.
    """
    source.seek(start)
    first = min(size, -start % PAGE)
    target.write(source.read(first))
    target.flush()
    done = first
    if hasattr(os, "copy_file_range"):
        done += _by_system(source, target, start + first, size - first)
    source.seek(start + done)
    target.seek(0, os.SEEK_END)
    _by_hand(source, target, size - done)


def _by_system(source: BinaryIO, target: BinaryIO, start: int, size: int) -> int:
    """How many bytes the system copied."""
    end, done = os.fstat(target.fileno()).st_size, 0
    while done < size:
        try:
            copied = os.copy_file_range(
                source.fileno(), target.fileno(), min(_PIECE, size - done), start + done, end + done
            )
        except OSError:
            return done
        if copied == 0:
            return done
        done += copied
    return done


def _by_hand(source: BinaryIO, target: BinaryIO, size: int) -> None:
    left = size
    while left:
        piece = source.read(min(left, 1 << 22))
        if not piece:
            raise OSError(f"{source.name} became shorter while it was copied")
        target.write(piece)
        left -= len(piece)
