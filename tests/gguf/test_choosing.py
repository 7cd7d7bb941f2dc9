"""Which backend computes a file, what says so, and what our kernels refuse with what mends it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch

from dllm_kernels.compiled import library
from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.decoded import check_decoded
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.llama_cpp import choosing
from dllm_plugins.llama_cpp.convert import convert
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import auto_backend

from .checkpoints import KINDS
from .checkpoints import MASK
from .checkpoints import make
from .twins import foreign

Change = Callable[[GgufCheckpoint], dict[str, Any]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Float files of graphs that the kernels compute, of one that they do not, and of one only they do."""
    place = tmp_path_factory.mktemp("files")
    found = {}
    for name in ("sdar", "dream", "diffullama", "sdar_moe", "wedlm-qwen3"):
        folder = make(place / name, name)
        found[name] = convert(folder, place / f"{name}.gguf", "F32", family=KINDS[name].family, mask_id=MASK)
    return found


def chosen(file: Path, **options: Any) -> tuple[str, str]:
    """The backend of a file that says of itself what it is, and why."""
    found = auto_backend(str(file), **options)
    return found.backend, found.reason


def retyped(checkpoint: GgufCheckpoint, kind: str) -> GgufCheckpoint:
    """The same file, if its matrices were of another type."""
    to = gguf.GGMLQuantizationType[kind]
    tensors = {
        name: replace(info, type=to) if len(info.shape) > 1 else info
        for name, info in checkpoint.header.tensors.items()
    }
    return replace(checkpoint, header=replace(checkpoint.header, tensors=tensors))


def test_auto_is_what_is_faster_here(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor, the types and what is installed; `load_model` takes what is told."""
    checkpoint, options = open_gguf(files["sdar"]), LoadOptions()
    monkeypatch.setattr(choosing, "has", lambda _name: True)
    monkeypatch.setattr(library, "why_not", lambda: None)
    monkeypatch.setattr(choosing, "choose_dtype", lambda *_: torch.float32)
    backends = {
        kind: choosing.backend_of("x", retyped(checkpoint, kind), options).backend
        for kind in ("F32", "BF16", "F16", "Q4_1", "Q4_0", "Q8_0", "Q6_K", "IQ4_NL")
    }
    assert {kind for kind, backend in backends.items() if backend == "kernels"} == {"BF16", "Q4_1"}
    reason = "our kernels were not faster for F32 where a processor does not multiply bfloat16"
    assert chosen(files["sdar"]) == ("llama_cpp", reason)
    monkeypatch.setattr(choosing, "choose_dtype", lambda *_: torch.bfloat16)
    for kind in ("Q4_0", "Q8_0", "BF16"):
        assert choosing.backend_of("x", retyped(checkpoint, kind), options).backend == "kernels"
    assert not hasattr(load_model(str(files["sdar"])).denoiser, "context")
    monkeypatch.setattr(library, "why_not", lambda: "was never built")
    found = choosing.backend_of("x", checkpoint, options)
    assert (found.backend, found.faster) == ("llama_cpp", ("the compiled kernel library, which was never built",))
    assert "python -m dllm_kernels.build" in found.reason
    assert choosing.backend_of("x", checkpoint, LoadOptions(dtype="bfloat16")).backend == "kernels"
    assert choosing.backend_of("x", checkpoint, LoadOptions(dtype="float16")).backend == "llama_cpp"
    monkeypatch.setattr(choosing, "has", lambda _name: False)
    assert chosen(files["dream"]) == ("kernels", "llama.cpp is not installed")


def test_what_one_backend_alone_computes_is_its(files: dict[str, Path]) -> None:
    """Experts, and tokens in another order than their positions."""
    assert chosen(files["sdar_moe"]) == ("llama_cpp", "of the backends only llama.cpp computes this file")
    assert chosen(files["wedlm-qwen3"]) == ("kernels", "llama.cpp takes positions in order only")
    assert chosen(files["sdar"], weights="dequantised")[0] == "kernels"
    with pytest.raises(OptionError, match=r"weights='int8' is of no use to .*Qwen3MoeForCausalLM"):
        load_model(str(files["sdar_moe"]), weights="int8")
    with pytest.raises(OptionError, match=r"backend='kernels' computes .*'qwen3moe', a Qwen3MoeForCausalLM; leave b"):
        load_model(str(files["sdar_moe"]), backend="kernels")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "Q8_0"}, "weights='Q8_0' is unknown; use 'auto' or 'blocks'"),
        ({"weights": "blocks"}, r"weights='blocks' multiplies blocks of Q4_0, .* and .* holds none; leave it out"),
        ({"dtype": "half"}, "dtype='half' is unknown"),
        ({"device": "meta"}, "device='meta' cannot run"),
        ({"compile": True}, "compile=True is of no use"),
        ({"device_map": "auto"}, "device_map='auto' is of no use"),
        ({"base": "x"}, "base='x' is of no use"),
    ],
)
def test_options_are_honoured_or_refused(options: dict[str, Any], words: str, files: dict[str, Path]) -> None:
    """As for any model."""
    with pytest.raises(OptionError, match=words):
        load_model(str(files["sdar"]), backend="kernels", **options)


def with_tensor(checkpoint: GgufCheckpoint, name: str, **changes: Any) -> GgufCheckpoint:
    """The same file, if it had this tensor."""
    tensors = dict(checkpoint.header.tensors)
    tensors[name] = replace(tensors.get(name, tensors["output_norm.weight"]), name=name, **changes)
    return replace(checkpoint, header=replace(checkpoint.header, tensors=tensors))


def with_key(checkpoint: GgufCheckpoint, key: str, value: Any) -> GgufCheckpoint:
    """The same file, if it said this."""
    return replace(checkpoint, header=replace(checkpoint.header, metadata={**checkpoint.header.metadata, key: value}))


def test_what_the_decoder_does_not_compute_is_named(files: dict[str, Path]) -> None:
    """A type of blocks, a tensor without a place, one of several parts, a family of another class."""
    checkpoint = open_gguf(files["sdar"])
    check_decoded(checkpoint)
    words = r"but tensor '\w+.weight' of .* is IQ4_NL; leave backend out, or write another file: `llm dllm gguf"
    with pytest.raises(OptionError, match=words):
        check_decoded(retyped(checkpoint, "IQ4_NL"))
    with pytest.raises(OptionError, match=r"takes F32, .* and Q6_K, but tensor 'blk.0.ffn_up.weight' .* of shape"):
        check_decoded(with_tensor(checkpoint, "blk.0.ffn_up.weight", shape=(2, 3, 4)))
    with pytest.raises(OptionError, match=r"no place for tensor 'blk\.0.attn_sinks.weight'"):
        check_decoded(with_tensor(checkpoint, "blk.0.attn_sinks.weight"))
    with pytest.raises(CheckpointError, match="one of several parts; join them with llama-gguf-split --merge"):
        check_decoded(with_key(checkpoint, "split.count", 2))
    with pytest.raises(CheckpointError, match=r"is damaged: qwen3\.block_count is 0"):
        check_decoded(with_key(checkpoint, "qwen3.block_count", 0))
    with pytest.raises(CheckpointError, match="architecture is 'llama', a LlamaForCausalLM, and family 'sdar'"):
        changed = with_key(checkpoint, "general.architecture", "llama")
        keys = {f"llama.{key.partition('.')[2]}": value for key, value in changed.header.metadata.items()}
        check_decoded(replace(changed, header=replace(changed.header, metadata={**changed.header.metadata, **keys})))


def test_keys_of_others_that_change_what_is_computed(files: dict[str, Path], tmp_path: Path) -> None:
    """Are refused by name, and the file is llama.cpp's; missing and absurd ones are errors."""
    plain = open_gguf(foreign(files["diffullama"], tmp_path / "plain.gguf"), "diffullama")
    check_decoded(plain)
    for key, value in (
        ("llama.attention.scale", 0.5),
        ("llama.expert_count", 4096),
        ("llama.rope.scaling.type", "longrope"),
        ("llama.attention.sliding_window", 128),
    ):
        with pytest.raises((OptionError, CheckpointError), match=key):
            check_decoded(with_key(plain, key, value))
    assert choosing.backend_of("x", with_key(plain, "llama.attention.scale", 0.5), LoadOptions()).backend == "llama_cpp"
    absurd: list[tuple[str, Any]] = [
        ("llama.rope.freq_base", float("nan")),
        ("llama.feed_forward_length", [96, 128]),
        ("llama.context_length", "long"),
        ("llama.rope.freq_base", "wide"),
    ]
    for key, value in absurd:
        with pytest.raises((OptionError, CheckpointError), match=r"llama\.|rope_theta"):
            check_decoded(with_key(plain, key, value))


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_was_cut_is_an_error(kept: float, files: dict[str, Path], tmp_path: Path) -> None:
    """Before anything is mapped."""
    whole = files["dream"].read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(str(tmp_path / "cut.gguf"), backend="kernels")


def test_tensors_that_contradict_the_config_are_errors(files: dict[str, Path], tmp_path: Path) -> None:
    """One that is missing, and numbers that are not finite: nothing is decoded with them."""
    reader = gguf.GGUFReader(foreign(files["diffullama"], tmp_path / "whole.gguf"), "r+")
    norm = next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
    norm.data[3] = float("inf")
    reader.data.flush()
    options: dict[str, Any] = {"family": "diffullama", "backend": "kernels"}
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds numbers that are not finite"):
        load_model(str(tmp_path / "whole.gguf"), **options)
    more = {"llama.block_count": 3}
    with pytest.raises(CheckpointError, match=r"has no tensor 'model\.layers\.2\."):
        load_model(str(foreign(files["diffullama"], tmp_path / "deep.gguf", more=more)), **options)
