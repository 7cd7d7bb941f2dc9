"""The header of a GGUF file, read and checked before llama.cpp sees the file.

llama.cpp answers a damaged file with a line in its log, a crash at worst. Everything here
is read from a memory map, and every length is compared with the file's own before it is used.
Format: ggml-org/ggml docs/gguf.md; limits as in llama.cpp's ggml/src/gguf.cpp.
"""

import mmap
import struct
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from typing import NoReturn

from dllm_plugins.errors import CheckpointError
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType
from gguf import GGUFValueType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4
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
#: Of a value, and of an array's members.
_Types = tuple[GGUFValueType, GGUFValueType | None]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file.

    :param shape: slowest dimension first, as in torch; GGUF itself writes it the other way round.
    :param offset: of its first byte in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself, checked.

    :param metadata: every key's value: a number, a string, a bool, or a list of one kind of these.
    :param types: every key's value type, and for arrays their elements' type.
    :param tensors: by name, in the file's order.
    :param data_offset: where the tensors' bytes begin.
    :param spans: where in the file each key and its value are, from the key's length to the value's end.
    :param infos: where in the file the tensors are announced.
    """

    path: Path
    version: int
    alignment: int
    metadata: Mapping[str, Any]
    types: Mapping[str, _Types]
    tensors: Mapping[str, TensorInfo]
    data_offset: int
    spans: Mapping[str, tuple[int, int]]
    infos: tuple[int, int]

    @property
    def architecture(self) -> str:
        """llama.cpp's name for the graph that computes these weights."""
        found: str = self.metadata["general.architecture"]
        return found

    def value(self, key: str, default: Any = None) -> Any:
        """The value of `{architecture}.{key}`."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


def read_header(path: Path) -> Header:
    """Read and check a file's header; the tensors' bytes are not read.

    :raises CheckpointError: for a file that is missing, is not GGUF, of another version,
        truncated or damaged; it names the file and what to do.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            if file.read(4) != MAGIC:
                raise CheckpointError(f"{place} is not a GGUF file; give a *.gguf file, or a checkpoint's folder")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(place, view).header()
    except OSError as error:
        raise CheckpointError(f"cannot read {place}: {error}; check the path") from error


class _Reader:
    """A place in the mapped file, and what was read up to there."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self.path, self.view, self.at = path, view, 4

    def header(self) -> Header:
        version = self._version()
        tensors, pairs = self._number("q"), self._number("q")
        if not 0 <= tensors <= len(self.view) // 24 or not 0 <= pairs <= len(self.view) // 13:
            self._damaged(f"it claims {tensors} tensors and {pairs} metadata entries")
        metadata, types, spans = self._metadata(pairs)
        if not isinstance(metadata.get("general.architecture"), str):
            self._damaged("it has no general.architecture")
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self._damaged(f"general.alignment is {alignment!r}")
        start = self.at
        infos = list(self._infos(tensors))
        data = -(-self.at // alignment) * alignment
        placed = self._placed(infos, data, alignment)
        return Header(self.path, version, alignment, metadata, types, placed, data, spans, (start, self.at))

    def _version(self) -> int:
        version: int = self._number("I")
        if version in VERSIONS:
            return version
        if version & 0xFFFF == 0:
            raise CheckpointError(
                f"{self.path} was written for a big-endian machine; convert the checkpoint again here"
            )
        known = " and ".join(map(str, VERSIONS))
        raise CheckpointError(
            f"{self.path} is GGUF version {version}, and versions {known} are read; convert the checkpoint again"
        )

    def _metadata(self, count: int) -> tuple[dict[str, Any], dict[str, _Types], dict[str, tuple[int, int]]]:
        metadata: dict[str, Any] = {}
        types: dict[str, _Types] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            start, key = self.at, self._text()
            if key in metadata:
                self._damaged(f"metadata key {key!r} comes twice")
            kind, inner = self._kind(key), None
            if kind is GGUFValueType.ARRAY:
                inner = self._kind(key)
                metadata[key] = self._array(inner, key)
            else:
                metadata[key] = self._text() if kind is GGUFValueType.STRING else self._number(_SCALARS[kind])
            types[key], spans[key] = (kind, inner), (start, self.at)
        return metadata, types, spans

    def _kind(self, key: str) -> GGUFValueType:
        number = self._number("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            self._damaged(f"metadata key {key!r} has the unknown type {number}")

    def _array(self, inner: GGUFValueType, key: str) -> list[Any]:
        count = self._number("Q")
        if inner is GGUFValueType.STRING:
            self._room(8 * count)
            return [self._text() for _ in range(count)]
        if inner is GGUFValueType.ARRAY:
            self._damaged(f"metadata key {key!r} is an array of arrays")
        code = _SCALARS[inner]
        size = struct.calcsize(code) * count
        self._room(size)
        found = list(struct.unpack_from(f"<{count}{code}", self.view, self.at))
        self.at += size
        return found

    def _infos(self, count: int) -> Iterator[tuple[str, tuple[int, ...], GGMLQuantizationType, int]]:
        for _ in range(count):
            name, dimensions = self._text(), self._number("I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                self._damaged(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
            number, offset = self._number("I"), self._number("Q")
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                self._damaged(f"tensor {name!r} has the unknown type {number}")
            yield name, shape, kind, offset

    def _placed(
        self, infos: list[tuple[str, tuple[int, ...], GGMLQuantizationType, int]], data: int, alignment: int
    ) -> dict[str, TensorInfo]:
        """Tensors with their sizes; they follow one another without a gap."""
        found: dict[str, TensorInfo] = {}
        end = 0
        for name, shape, kind, offset in infos:
            block, width = GGML_QUANT_SIZES[kind]
            if name in found:
                self._damaged(f"tensor {name!r} comes twice")
            if not prod(shape) or shape[-1] % block:
                self._damaged(f"tensor {name!r} is {shape} of {kind.name}, whose rows are blocks of {block}")
            if offset != end:
                self._damaged(f"tensor {name!r} is at {offset}, where {end} was expected")
            size = prod(shape) // block * width
            found[name] = TensorInfo(name, shape, kind, data + offset, size)
            end = -(-(offset + size) // alignment) * alignment
            if data + offset + size > len(self.view):
                raise CheckpointError(
                    f"{self.path} is truncated: tensor {name!r} ends at byte {data + offset + size}, the file at "
                    f"{len(self.view)}; download or convert it again"
                )
        return found

    def _number(self, code: str) -> Any:
        size = struct.calcsize(code)
        self._room(size)
        (found,) = struct.unpack_from("<" + code, self.view, self.at)
        self.at += size
        return found

    def _text(self) -> str:
        size = self._number("Q")
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

    def _damaged(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self.path} is damaged: {what}; download or convert it again")
