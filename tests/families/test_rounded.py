"""Checkpoints rounded into blocks while they are loaded: bit for bit the model that was rounded beforehand."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_kernels.compiled import library
from dllm_plugins import Model
from dllm_plugins import load_model
from dllm_plugins.denoisers import rounded
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import MissingExtraError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.hub import denoiser_of
from dllm_plugins.families.quantised import ROUNDED
from dllm_plugins.models import auto_backend

from ..gguf.checkpoints import KINDS
from ..gguf.checkpoints import MASK
from ..gguf.checkpoints import make
from ..gguf.test_kernels import answers
from ..gguf.test_kernels import logits
from ..gguf.test_kernels import preset
from ..gguf.test_kernels import same_specs

compiled = pytest.mark.skipif(library.why_not() is not None, reason="needs the compiled kernels")
#: Every kind, every class and every switch of a config; of stored names and of ties, too.
CASES = {
    "llada": "Q4_0",
    "illada": "Q4_1",
    "a2d-llama": "Q5_0",
    "dream": "Q5_1",
    "fast_dllm_v2": "Q8_0",
    "sdar": "Q4_0",
    "llama3-rotary": "Q4_1",
}


def options(name: str) -> dict[str, Any]:
    """What the checkpoint does not say."""
    said = {"family": KINDS[name].family, "mask_id": MASK, "preset": preset(name)}
    return {"device": "cpu", **{key: value for key, value in said.items() if value is not None}}


def twin(folder: Path, name: str, kind: str, dtype: str) -> Model:
    """The checkpoint with weights that GGUF's own library rounded and gave back, as bfloat16 numbers."""
    plain = load_model(str(folder), dtype=dtype, **options(name))
    checkpoint = open_checkpoint(folder, KINDS[name].family)
    native: Any = load_checkpoint(checkpoint, getattr(torch, dtype))
    for key, weight in native.named_parameters():
        if weight.ndim == 2:
            ends = "lm_head" in key or "embed_tokens" in key
            quant = gguf.GGMLQuantizationType["Q8_0" if ends else kind]
            small = gguf.quants.quantize(weight.detach().float().numpy(), quant)
            weight.data = torch.from_numpy(gguf.quants.dequantize(small, quant)).bfloat16().to(weight.dtype)
    return Model(plain.name, denoiser_of(native, checkpoint, plain.denoiser.spec, "kernels"), plain.tokenizer)


@compiled
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_the_model_that_was_rounded_beforehand(name: str, dtype: str, tmp_path: Path) -> None:
    """Logits to the bit, tokens, and every option of the spec; statistics say what is multiplied."""
    kind, folder = CASES[name], make(tmp_path / "folder", name, getattr(torch, dtype))
    ours = load_model(str(folder), weights=kind, dtype=dtype, **options(name))
    other = twin(folder, name, kind, dtype)
    assert torch.equal(logits(ours), logits(other))
    assert answers(ours) == answers(other)
    same_specs(ours, other)
    spec = ours.denoiser.spec
    assert (spec.weights, spec.numerics) == (", ".join(sorted({kind, "Q8_0"})), "row-invariant")
    assert spec.name == f"{folder} with {kind} weights"


@compiled
def test_nothing_stays_of_the_weights_before(tmp_path: Path) -> None:
    """The class that was loaded has none any more."""
    model: Any = load_model(str(make(tmp_path / "folder", "sdar")), weights="Q4_0", **options("sdar"))
    assert {weight.device.type for weight in model.denoiser.model.parameters()} == {"meta"}


@compiled
def test_auto_says_why(tmp_path: Path) -> None:
    """Before a weight is read."""
    found = auto_backend(str(make(tmp_path / "folder", "sdar")), weights="Q4_1", **options("sdar"))
    assert (found.backend, found.reason) == ("kernels", "Q4_1 weights run on the block decoder only")


@pytest.mark.parametrize(
    ("name", "sizes", "more", "words"),
    [
        ("sdar", {}, {"weights": "Q3_K"}, f"weights='Q3_K' is unknown; use 'auto' or 'int8' or '{ROUNDED[0]}'"),
        ("sdar", {}, {"backend": "torch"}, "weights='Q4_0' runs on the block decoder only; leave backend='torch' out"),
        ("sdar", {}, {"device_map": "auto"}, "weights='Q4_0' runs on one device; leave device_map='auto' out"),
        ("sdar", {}, {"compile": True}, "leave weights='Q4_0' or compile out"),
        ("sdar", {"intermediate_size": 80}, {}, "rounds blocks of 32 numbers, and rows of this model hold 80"),
        ("sdar_moe", {}, {}, "weights='Q4_0' computes LlamaForCausalLM.*is a Qwen3MoeForCausalLM; leave weights out"),
    ],
)
def test_what_cannot_be_rounded(
    name: str, sizes: dict[str, Any], more: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Refused before a weight is read, with the way out."""
    folder = make(tmp_path / "folder", name, **sizes)
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(OptionError, match=words):
        load_model(str(folder), **{**options(name), "weights": "Q4_0", **more})


def test_a_kind_needs_the_compiled_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere blocks would be dequantised, which saves nothing."""
    monkeypatch.setattr(library, "why_not", lambda: "not built")
    with pytest.raises(OptionError, match=r"weights='Q8_0' needs the compiled kernels; run `python -m"):
        load_model(str(make(tmp_path / "folder", "sdar")), weights="Q8_0", **options("sdar"))


def test_a_kind_needs_the_package_that_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with its extra."""

    def missing(module: str, purpose: object) -> Any:
        raise MissingExtraError(f"{purpose} needs {module}")

    monkeypatch.setattr(rounded, "need", missing)
    with pytest.raises(MissingExtraError, match="weights='Q8_0' needs gguf"):
        load_model(str(make(tmp_path / "folder", "sdar")), weights="Q8_0", **options("sdar"))


@compiled
def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    """They have no place in a block."""
    folder = make(tmp_path / "folder", "sdar")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="not finite"):
        load_model(str(folder), weights="Q4_0", **options("sdar"))
