"""The header of a GGUF file, read and checked before llama.cpp sees the file.

llama.cpp answers a damaged file with a line in its log, a crash at worst. Everything here
is read from a memory map, and every length is compared with the file's own before it is used.
Format: ggml-org/ggml docs/gguf.md; limits as in llama.cpp's ggml/src/gguf.cpp.
"""

import mmap
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType
from gguf import GGUFValueType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import regular
from dllm_plugins.gguf.cursor import Cursor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4
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
    regular(place, "check the path")
    try:
        with place.open("rb") as file:
            if file.read(4) != MAGIC:
                raise CheckpointError(f"{place} is not a GGUF file; give a *.gguf file, or a checkpoint's folder")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _HeaderReader(place, view, len(MAGIC)).header()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {place}: {error}; check the path") from error


class _HeaderReader(Cursor):
    """A file that is being read from its start to its tensors."""

    def header(self) -> Header:
        version = self._version()
        tensors, pairs = self.number("q"), self.number("q")
        if not 0 <= tensors <= len(self.view) // 24 or not 0 <= pairs <= len(self.view) // 13:
            self.damaged(f"it claims {tensors} tensors and {pairs} metadata entries")
        metadata, types, spans = self._metadata(pairs)
        if not isinstance(metadata.get("general.architecture"), str):
            self.damaged("it has no general.architecture")
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            self.damaged(f"general.alignment is {alignment!r}")
        start = self.at
        infos = list(self._infos(tensors))
        data = -(-self.at // alignment) * alignment
        placed = self._placed(infos, data, alignment)
        return Header(self.path, version, alignment, metadata, types, placed, data, spans, (start, self.at))

    def _version(self) -> int:
        version: int = self.number("I")
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
            start, key = self.at, self.text()
            if key in metadata:
                self.damaged(f"metadata key {key!r} comes twice")
            kind = self.kind(key)
            metadata[key], inner = self.value(kind, key)
            types[key], spans[key] = (kind, inner), (start, self.at)
        return metadata, types, spans

    def _infos(self, count: int) -> Iterator[tuple[str, tuple[int, ...], GGMLQuantizationType, int]]:
        for _ in range(count):
            name, dimensions = self.text(), self.number("I")
            if not 1 <= dimensions <= MAX_DIMENSIONS:
                self.damaged(f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
            number, offset = self.number("I"), self.number("Q")
            try:
                kind = GGMLQuantizationType(number)
            except ValueError:
                self.damaged(f"tensor {name!r} has the unknown type {number}")
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
                self.damaged(f"tensor {name!r} comes twice")
            if not prod(shape) or shape[-1] % block:
                self.damaged(f"tensor {name!r} is {shape} of {kind.name}, whose rows are blocks of {block}")
            if offset != end:
                self.damaged(f"tensor {name!r} is at {offset}, where {end} was expected")
            size = prod(shape) // block * width
            found[name] = TensorInfo(name, shape, kind, data + offset, size)
            end = -(-(offset + size) // alignment) * alignment
            if data + offset + size > len(self.view):
                raise CheckpointError(
                    f"{self.path} is truncated: tensor {name!r} ends at byte {data + offset + size}, the file at "
                    f"{len(self.view)}; download or convert it again"
                )
        return found
