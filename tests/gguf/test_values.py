"""Headers that are whole and say what no model has: llama.cpp aborts the process at them, ours refuses them."""

import os
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.header import read_header
from dllm_plugins.gguf.values import check_values
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.llama_cpp.model import GgufModel

from . import tiny
from .checkpoints import KINDS
from .checkpoints import make

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

#: Values at which llama.cpp aborts: (architecture, key, value).
ABORTS: list[tuple[str, str, int | float]] = [
    ("llama", "attention.layer_norm_rms_epsilon", -1.0),
    ("llama", "block_count", 0),
    ("llama", "block_count", 513),
    ("qwen3", "rope.dimension_count", 16),
    ("qwen3moe", "expert_count", 2000),
    ("qwen3moe", "expert_count", 0),
    ("qwen3moe", "expert_used_count", 0),
    ("qwen3moe", "expert_used_count", 7),
]
#: Others, in headers only: (key, value).
REFUSED: list[tuple[str, Any]] = [
    ("nextn_predict_layers", 2),
    ("embedding_length", 0),
    ("embedding_length", None),
    ("attention.head_count", 0),
    ("attention.head_count", 65536),
    ("attention.head_count_kv", 0),
    ("attention.value_length", 8),
    ("attention.head_count", [6]),
    ("attention.head_count_kv", 4),
    ("attention.head_count", 6.0),
    ("attention.layer_norm_rms_epsilon", -1.0),
    ("attention.layer_norm_rms_epsilon", float("nan")),
    ("rope.scaling.type", "squared"),
    ("expert_group_count", 6),
    ("expert_group_count", 4),
    ("expert_gating_func", 9),
    ("expert_feed_forward_length", 0),
]


def patched(path: Path, key: str, value: float) -> Path:
    """The file with another number of four bytes."""
    header = read_header(path)
    begin, _ = header.spans[f"{header.architecture}.{key}"]
    raw = bytearray(path.read_bytes())
    at = begin + 8 + len(f"{header.architecture}.{key}") + 4
    struct.pack_into("<f" if isinstance(value, float) else "<I", raw, at, value)
    path.write_bytes(raw)
    return path


def changed(header: Header, key: str, value: Any) -> Header:
    return replace(header, metadata={**header.metadata, key: value})


@pytest.mark.skipif(os.name != "posix", reason="an abort is told by its signal")
@pytest.mark.parametrize(("architecture", "key", "value"), ABORTS)
def test_llama_cpp_aborts_and_ours_refuses(tmp_path: Path, architecture: str, key: str, value: float) -> None:
    path = patched(tiny.tiny(tmp_path, architecture).path, key, value)
    script = Path(__file__).with_name("aborting.py")
    done = subprocess.run(
        [sys.executable, str(script), "value that no model has", str(path)],
        env=os.environ | {"GGML_NO_BACKTRACE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGABRT, done.stdout + done.stderr[-2000:]
    with pytest.raises(
        CheckpointError, match=rf"is damaged: {architecture}\.\S+ is .*, which llama.cpp cannot compute"
    ):
        GgufModel(path)


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_the_key_and_its_value_are_named(tmp_path: Path, key: str, value: Any) -> None:
    header = read_header(tiny.tiny(tmp_path, "qwen3moe").path)
    check_values(header)
    with pytest.raises(CheckpointError, match=rf"qwen3moe\.{key} is "):
        check_values(changed(header, f"qwen3moe.{key}", value))


@pytest.mark.parametrize(("name", "kind"), [("output_norm.weight", "F16"), ("blk.0.attn_q.weight", "I32")])
def test_types_that_no_product_takes(tmp_path: Path, name: str, kind: str) -> None:
    header = read_header(tiny.tiny(tmp_path).path)
    odd = replace(header.tensors[name], type=GGMLQuantizationType[kind])
    with pytest.raises(CheckpointError, match=f"the type of tensor '{name}' is '{kind}'"):
        check_values(replace(header, tensors={**header.tensors, name: odd}))


def test_a_token_with_two_ids(tmp_path: Path) -> None:
    header = changed(read_header(tiny.tiny(tmp_path).path), "tokenizer.ggml.model", "gpt2")
    check_values(changed(header, "tokenizer.ggml.tokens", ["a", "", "", "\ufffd", "\ufffd"]))
    with pytest.raises(CheckpointError, match=r"token 2 of tokenizer\.ggml\.tokens, which is there before, is 'a'"):
        check_values(changed(header, "tokenizer.ggml.tokens", ["a", "b", "a"]))


@pytest.mark.parametrize("name", KINDS)
def test_what_the_converter_writes_passes(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = convert(make(tmp_path / name, name), tmp_path / "out.gguf", "F32", family=kind.family)
    header = read_header(path)
    check_values(header)
    assert header.architecture == kind.graph
