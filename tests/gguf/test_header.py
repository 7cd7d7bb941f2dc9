"""Headers are read as they were written, and no damage of them gets past the reader."""

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf import GGUFReader
from gguf import GGUFValueType
from gguf import GGUFWriter

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.header import read_header


def write(path: Path, **more: Any) -> Path:
    """A file with a value of every kind and tensors of three types."""
    writer = GGUFWriter(path, "qwen2", **more)
    writer.add_block_count(3)
    writer.add_name("größer")
    writer.add_key_value("own.yes", True, GGUFValueType.BOOL)
    writer.add_key_value("own.big", 1 << 40, GGUFValueType.UINT64)
    writer.add_key_value("own.low", -3, GGUFValueType.INT8)
    writer.add_key_value("own.half", 0.5, GGUFValueType.FLOAT64)
    writer.add_array("own.words", ["a", "", "ö"])
    writer.add_array("own.numbers", [1, -2, 3])
    writer.add_tensor("one", np.arange(5, dtype=np.float32))
    writer.add_tensor("two", np.ones((3, 4), dtype=np.float16))
    writer.add_tensor("three", np.zeros((2, 34), dtype=np.uint8), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_everything_is_read(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.gguf"))
    assert (header.architecture, header.version, header.alignment) == ("qwen2", 3, 32)
    assert header.value("block_count") == 3
    assert header.value("no_such_key", 7) == 7
    assert header.metadata["general.name"] == "größer"
    assert header.metadata["own.yes"] is True
    assert header.metadata["own.big"] == 1 << 40
    assert header.metadata["own.low"] == -3
    assert header.metadata["own.half"] == 0.5
    assert header.metadata["own.words"] == ["a", "", "ö"]
    assert header.metadata["own.numbers"] == [1, -2, 3]
    assert header.types["own.words"] == (GGUFValueType.ARRAY, GGUFValueType.STRING)
    assert header.types["own.low"] == (GGUFValueType.INT8, None)


@pytest.mark.parametrize("alignment", [32, 128])
def test_tensors_are_where_the_other_reader_finds_them(alignment: int, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    writer = GGUFWriter(path, "qwen2")
    writer.add_custom_alignment(alignment)
    for size in (3, 40, 7):
        writer.add_tensor(f"t{size}", np.full((2, size), size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert header.alignment == alignment
    found = {item.name: (item.data_offset, item.n_bytes) for item in GGUFReader(path).tensors}
    assert {item.name: (item.offset, item.size) for item in header.tensors.values()} == found
    assert header.tensors["t40"].shape == (2, 40)
    for name, (start, stop) in header.spans.items():
        raw = path.read_bytes()[start:stop]
        assert raw[8 : 8 + len(name)] == name.encode()


def test_every_truncation_is_refused_by_name(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.gguf").read_bytes()
    end = max(item.offset + item.size for item in read_header(tmp_path / "a.gguf").tensors.values())
    cut = tmp_path / "cut.gguf"
    for length in range(end):
        cut.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.gguf"):
            read_header(cut)
    cut.write_bytes(whole[:end])
    assert read_header(cut).architecture == "qwen2"


def test_no_damage_gets_past_as_anything_else(tmp_path: Path) -> None:
    """Random bytes in the header: it is read, or refused, and nothing else happens."""
    whole = write(tmp_path / "a.gguf").read_bytes()
    data = read_header(tmp_path / "a.gguf").data_offset
    draw, path, refused = random.Random(0), tmp_path / "b.gguf", 0
    for _ in range(600):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(data)] = draw.choice((0, 1, 127, 255, draw.randrange(256)))
        path.write_bytes(damaged)
        try:
            read_header(path)
        except CheckpointError as error:
            refused += 1
            assert "b.gguf" in str(error)
    assert refused > 200


def number(text: bytes, old: tuple[str, int], new: int) -> bytes:
    """The text with the number behind a key replaced."""
    key, width = old
    at = text.index(key.encode()) + len(key)
    return text[:at] + new.to_bytes(width, "little") + text[at + width :]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: b"GGML" + text[4:], "is not a GGUF file"),
        (lambda text: text[:4] + struct.pack("<I", 1) + text[8:], "version 1"),
        (lambda text: text[:4] + struct.pack(">I", 3) + text[8:], "big-endian"),
        (lambda text: text[:8] + struct.pack("<q", 1 << 50) + text[16:], "claims 1125899906842624 tensors"),
        (lambda text: text[:16] + struct.pack("<q", -1) + text[24:], "claims"),
        (lambda text: text.replace(b"general.architecture", b"general.architectura"), "no general.architecture"),
        (lambda text: text.replace(b"own.low", b"own.big"), "'own.big' comes twice"),
        (lambda text: number(text, ("own.yes", 4), 99), "'own.yes' has the unknown type 99"),
        (lambda text: number(text, ("own.numbers", 8), 9 | 9 << 32), "an array of arrays"),
        (lambda text: number(text, ("two", 4), 9), "'two' has 9 dimensions"),
        (lambda text: number(text, ("one", 12), 1), "'one' is (0,)"),
        (lambda text: text.replace(b"\x03\0\0\0\0\0\0\0two", b"\x03\0\0\0\0\0\0\0one"), "'one' comes twice"),
    ],
)
def test_each_kind_of_damage_is_named(change: Any, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert reason in str(caught.value)
    assert "again" in str(caught.value) or "give a *.gguf" in str(caught.value)


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.gguf").touch()
    for name in ("none.gguf", "empty.gguf", "."):
        with pytest.raises(CheckpointError):
            read_header(tmp_path / name)
