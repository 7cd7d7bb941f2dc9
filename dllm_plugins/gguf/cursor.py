"""Reading the parts of a mapped GGUF file, each only if the file is long enough for it."""

import mmap
import struct
from pathlib import Path
from typing import Any
from typing import NoReturn

from gguf import GGUFValueType

from dllm_plugins.errors import CheckpointError

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}


class Cursor:
    """A place in a file.

    :param view: the whole file.
    :raises CheckpointError: from every method, naming the file, for what is damaged.
    """

    def __init__(self, path: Path, view: mmap.mmap, at: int) -> None:
        self.path, self.view, self.at = path, view, at

    def number(self, code: str) -> Any:
        """A little-endian number; `code` as in :mod:`struct`."""
        size = struct.calcsize(code)
        self._room(size)
        (found,) = struct.unpack_from("<" + code, self.view, self.at)
        self.at += size
        return found

    def text(self) -> str:
        """A string."""
        size = self.number("Q")
        self._room(size)
        raw = self.view[self.at : self.at + size]
        self.at += size
        # Vocabularies of foreign files hold bytes that are no UTF-8; they must not keep the file from being read.
        return raw.decode("utf-8", "replace")

    def _room(self, size: int) -> None:
        if size > len(self.view) - self.at:
            raise CheckpointError(
                f"{self.path} is truncated or damaged: {size} bytes are announced at {self.at}, and it has "
                f"{len(self.view)}; download or convert it again"
            )

    def damaged(self, what: str) -> NoReturn:
        """Refuse the file."""
        raise CheckpointError(f"{self.path} is damaged: {what}; download or convert it again")

    def kind(self, key: str) -> GGUFValueType:
        """A value's type; `key` is for errors."""
        number = self.number("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            self.damaged(f"metadata key {key!r} has the unknown type {number}")

    def value(self, kind: GGUFValueType, key: str) -> tuple[Any, GGUFValueType | None]:
        """A value of this type, and of an array its members' type."""
        if kind is GGUFValueType.ARRAY:
            inner = self.kind(key)
            return self._array(inner, key), inner
        return (self.text() if kind is GGUFValueType.STRING else self.number(_SCALARS[kind])), None

    def _array(self, inner: GGUFValueType, key: str) -> list[Any]:
        count = self.number("Q")
        if inner is GGUFValueType.STRING:
            self._room(8 * count)
            return [self.text() for _ in range(count)]
        if inner is GGUFValueType.ARRAY:
            self.damaged(f"metadata key {key!r} is an array of arrays")
        code = _SCALARS[inner]
        size = struct.calcsize(code) * count
        self._room(size)
        found = list(struct.unpack_from(f"<{count}{code}", self.view, self.at))
        self.at += size
        return found
