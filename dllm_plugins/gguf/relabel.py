"""Diffusion models' files under the name of a graph that computes the same and keeps keys and values.

llama.cpp gives `dream`, `llada`, `llada-moe` and `rnd1` no memory: every pass computes the
whole canvas. Their layers are those of other graphs, which have one: only the names differ
(llama.cpp 0c1e57098, src/models/*.cpp). The renamed file is a copy in the cache folder; the
user's own is only read.
"""

import hashlib
import shutil
import struct
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import BinaryIO

from gguf import GGMLQuantizationType
from gguf import GGUFValueType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.whole import made_once
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.copying import PAGE
from dllm_plugins.gguf.copying import copy_range
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.names import foreign

#: Rows of the shared expert that does nothing, for a graph that always has one.
_IDLE = 32
_SAMPLE = 4096


@dataclass(frozen=True, slots=True)
class Twin:
    """A graph that computes what another one does, and has memory.

    :param keys: what it must be told besides, without the architecture's prefix: uint32 or bool.
    :param unread: keys that only it reads, which are left out.
    :param idle: whether it needs a shared expert, which is then all zeros.
    """

    name: str
    keys: Mapping[str, int | bool] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    idle: bool = False


#: hy_v3 differs from llada-moe in a shared expert, and in asking the file how experts are weighed.
TWINS = {
    "dream": Twin("qwen2"),
    "llada": Twin("llama"),
    "rnd1": Twin("qwen3moe"),
    "llada-moe": Twin(
        "hy_v3",
        {"expert_gating_func": 1, "expert_weights_norm": False, "expert_shared_feed_forward_length": _IDLE},
        unread=("expert_weights_scale",),
        idle=True,
    ),
}


def with_memory(header: Header, folder: Path | None = None) -> Path:
    """A file of the same weights whose graph keeps keys and values; the file itself if it does already.

    The copy is made once; an older one of a file that has changed since is removed.

    :param folder: where copies are kept; the cache folder if not given.
    :raises CheckpointError: for a file in several parts, tensors that the two graphs treat
        differently, and a folder that cannot be written or has too little room.
    """
    twin = TWINS.get(header.architecture)
    if twin is None:
        return header.path
    _check(header, twin)
    place = folder or cache_folder() / "gguf"
    try:
        return _copied(header, twin, place)
    except OSError as error:
        raise CheckpointError(
            f"{header.path} needs a copy in {place} to keep keys and values, and it cannot be made: {error}; "
            "set DLLM_CACHE to a folder that can be written"
        ) from error


def _copied(header: Header, twin: Twin, folder: Path) -> Path:
    origin = hashlib.sha256(str(header.path.resolve()).encode()).hexdigest()[:12]
    return made_once(folder, origin, f"{identity(header)}-{twin.name}.gguf", lambda part: _write(header, twin, part))


def identity(header: Header) -> str:
    """What tells one file's contents from another's: its header, length, time, and the start of every tensor."""
    state = header.path.stat()
    digest = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode())
    with header.path.open("rb") as file:
        digest.update(file.read(header.data_offset))
        for tensor in header.tensors.values():
            file.seek(tensor.offset)
            digest.update(file.read(min(tensor.size, _SAMPLE)))
    return digest.hexdigest()[:16]


def _check(header: Header, twin: Twin) -> None:
    where = f"{header.path} ({header.architecture})"
    if int(header.metadata.get("split.count", 1)) > 1:
        raise CheckpointError(f"{where} is one of several parts; join them with llama-gguf-split --merge")
    layer = {*ARCHITECTURES[header.architecture].layer.values(), "attn_qkv.weight", "attn_qkv.bias"}
    for name in foreign(header.tensors, layer):
        raise CheckpointError(
            f"{where} has a tensor {name!r}, which {header.architecture!r} and {twin.name!r} treat differently; "
            "convert the original checkpoint with `llm dllm gguf`"
        )
    if twin.idle and not isinstance(header.value("expert_feed_forward_length"), int):
        raise CheckpointError(f"{where} does not say how wide its experts are; convert the original checkpoint again")


def _write(header: Header, twin: Twin, part: Path) -> None:
    more = list(_idle_tensors(header)) if twin.idle else []
    size = max(tensor.offset + tensor.size for tensor in header.tensors.values()) - header.data_offset
    end = -(-size // header.alignment) * header.alignment
    needed = size + sum(4 * rows * columns for _, rows, columns in more)
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise CheckpointError(
            f"{header.path} needs a copy of {needed >> 20} MiB to keep keys and values, and {part.parent} has "
            f"{free >> 20} MiB; free some, or set DLLM_CACHE to a folder with more"
        )
    with header.path.open("rb") as source, part.open("wb") as target:
        target.write(_head(header, twin, more, end, source))
        copy_range(source, target, header.data_offset, size)
        if more:
            target.write(bytes(end - size))
        for _, rows, columns in more:
            target.write(bytes(4 * rows * columns))


def _idle_tensors(header: Header) -> Iterator[tuple[str, int, int]]:
    """Names and sizes of shared experts that add nothing."""
    width = int(header.value("embedding_length"))
    for layer in range(int(header.value("block_count"))):
        yield f"blk.{layer}.ffn_gate_shexp.weight", _IDLE, width
        yield f"blk.{layer}.ffn_up_shexp.weight", _IDLE, width
        yield f"blk.{layer}.ffn_down_shexp.weight", width, _IDLE


def _head(header: Header, twin: Twin, more: list[tuple[str, int, int]], end: int, source: BinaryIO) -> bytes:
    """The new header, filled up to where its data begin."""
    prefix = header.architecture + "."
    pairs = [_pair("general.architecture", twin.name)]
    for key, (begin, stop) in header.spans.items():
        if key == "general.architecture" or key in {prefix + name for name in twin.unread}:
            continue
        source.seek(begin)
        raw = source.read(stop - begin)
        if key.startswith(prefix):
            raw = _text(f"{twin.name}.{key.removeprefix(prefix)}") + raw[8 + len(key.encode()) :]
        pairs.append(raw)
    pairs += [_pair(f"{twin.name}.{key}", value) for key, value in twin.keys.items()]
    source.seek(header.infos[0])
    infos = [source.read(header.infos[1] - header.infos[0])]
    for name, rows, columns in more:
        infos.append(_text(name) + struct.pack("<IQQIQ", 2, columns, rows, GGMLQuantizationType.F32, end))
        end += -(-4 * rows * columns // header.alignment) * header.alignment
    start = b"GGUF" + struct.pack("<IQQ", header.version, len(header.tensors) + len(more), len(pairs) + 1)
    length = len(start) + sum(map(len, pairs)) + sum(map(len, infos)) + len(_pair("dllm.filler", ""))
    pairs.append(_pair("dllm.filler", " " * ((header.data_offset - length) % PAGE)))
    return b"".join((start, *pairs, *infos))


def _pair(key: str, value: str | int | bool) -> bytes:
    if isinstance(value, str):
        return _text(key) + struct.pack("<I", GGUFValueType.STRING) + _text(value)
    if isinstance(value, bool):
        return _text(key) + struct.pack("<I?", GGUFValueType.BOOL, value)
    return _text(key) + struct.pack("<II", GGUFValueType.UINT32, value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
