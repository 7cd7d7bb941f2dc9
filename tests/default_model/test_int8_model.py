"""`weights="int8"`: lossless with respect to itself, said in its name, one copy of the weights, refused elsewhere."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file

from dllm_kernels import decoder as decoding
from dllm_kernels.compiled import library
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import LayerWeights
from dllm_kernels.decoder import take_weights
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.decoder.rotation import Rotation
from dllm_plugins.config import SamplingConfig
from dllm_plugins.default_model import load as default_model
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families import quantised
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request

from ..golden.cases import CLONED
from ..kernels.decoders import BIASED
from ..kernels.decoders import KINDS
from ..kernels.decoders import SHAPES
from ..kernels.decoders import drawn
from ..kernels.decoders import network
from ..kernels.decoders import row_of
from ..kernels.decoders import run

CONFIG = SamplingConfig(mode="ar", max_new_tokens=4)
PROMPTS = ([1, 40, 41, 42], [1, 77], [1, *range(30, 60)])


def load(folder: Path, **options: Any) -> Model:
    given = {"base": folder, "denoiser": folder.parent / "denoiser.safetensors", "dtype": "bfloat16", "device": "cpu"}
    return load_model(**{**given, **options})


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def int8(tiny_folder: Path, request: pytest.FixtureRequest) -> Model:
    """The tiny model with int8 weights, the rest in a dtype."""
    return load(tiny_folder, weights="int8", dtype=request.param)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_speculative_is_its_own_ar(int8: Model, temperature: float, threads: int) -> None:
    """Alone and as a batch of unequal rows."""
    found = {}
    for mode in ("ar", "speculative"):
        seed = 5 if temperature else None
        config = SamplingConfig(mode=mode, max_new_tokens=40, temperature=temperature, seed=seed)
        requests = [Request(prompt, config) for prompt in PROMPTS]
        found[mode] = [finish.tokens for finish in int8.engine().generate(requests)]
        alone = [int8.engine().generate([request])[0].tokens for request in requests]
        assert alone == found[mode]
    assert found["ar"] == found["speculative"]


def test_its_name_says_it(int8: Model, tiny: Model) -> None:
    assert int8.denoiser.spec.name == "dllm with int8 weights"
    assert int8.denoiser.spec.numerics == "row-invariant int8"
    assert int8.engine().generate([Request([1, 5], CONFIG)])[0].usage.numerics == "row-invariant int8"
    assert tiny.denoiser.spec.name == "dllm"


def test_every_mode_decodes(int8: Model) -> None:
    requests = [Request(PROMPTS[0], SamplingConfig(mode=mode, max_new_tokens=12)) for mode in ("diffusion", "ar")]
    assert all(finish.tokens for finish in int8.engine().generate(requests))


def test_no_second_copy_of_the_weights(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that were quantised are empty, and nobody holds the embedding that was read."""
    layers: list[LayerWeights] = []
    embeddings = []

    def watched(*given: Any) -> DecoderWeights:
        found = llama_from(*given)
        layers.extend(found.layers)
        embeddings.append(ref(found.embedding))
        return found

    monkeypatch.setattr(default_model, "llama_from", watched)
    denoiser = load(tiny_folder, weights="int8").denoiser
    assert isinstance(denoiser, TriModeDenoiser)
    assert len(layers) == 2
    assert not any(matrix.numel() for layer in layers for matrix in (layer.qkv, layer.out, layer.gate_up, layer.down))
    assert [held() for held in embeddings] == [None]


def test_hidden_states_are_near_the_unquantised_ones(tiny_folder: Path) -> None:
    """On clean and open rows, behind whatever turns the stream inside."""
    tokens, positions, seen = torch.arange(30, 50), torch.arange(20), torch.ones(20, 20).tril().bool()
    found = []
    for weights in ("auto", "int8"):
        denoiser = load(tiny_folder, weights=weights, dtype="float32").denoiser
        assert isinstance(denoiser, TriModeDenoiser)
        store = denoiser.decoder.new_store()
        store.reserve(20)
        hidden = denoiser.decoder.forward(tokens, positions, [Part(store, slice(0, 20), seen)], positions >= 12)
        left = torch.tensor([[41, 40], [42, -1]])
        found.append((hidden, denoiser.logits(hidden), denoiser.logits(hidden[:2], left)))
    for plain, near in zip(*found, strict=True):
        assert 0 < float((plain - near).norm() / plain.norm()) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [False, True])
def test_every_shape_is_near_its_unquantised_form(kind: str, given: bool) -> None:
    """Norms that are not one, biases, tied and untied heads; weights that stay, and weights given away."""
    if library.why_not() or not library.load().dllm_has_int8():
        pytest.skip("needs the compiled kernels on a processor with AVX-512 VNNI")
    for tied in (False, True):
        model = network(kind, tie_word_embeddings=tied, **SHAPES[1], **BIASED[kind])
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "layernorm" in name or name.endswith("model.norm.weight"):
                    parameter.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
        weights = replace(take_weights(model), given=given)
        found = []
        for int8 in (False, True):
            decoder = CompiledDecoder(weights, int8)
            rows = [(row_of(decoder), drawn(12), torch.arange(12), torch.ones(12, 12).tril().bool())]
            found.append(run(decoder, rows)[0].float())
            found.append(decoder.embed(drawn(12)))
        assert 0 < float((found[0] - found[2]).norm() / found[0].norm()) < 0.05
        torch.testing.assert_close(found[1], found[3], atol=1e-4, rtol=1e-4)
        assert (weights.layers[0].qkv.numel() == 0) == given


@pytest.mark.parametrize("size", [1, 36, 64, 194, 576])
def test_the_rotation_is_orthogonal(size: int) -> None:
    rotation = Rotation(size)
    matrix = rotation.matrix()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), atol=1e-5, rtol=0)
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(rotation.rotate(x), x @ matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rotation.rotate_outputs(x.T), (x @ matrix).T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": "int4"},
            r"weights='int4' is unknown; use 'auto' or 'blocks' or 'blocks_int8' or 'dequantised' or 'int8'",
        ),
        ({"weights": "int8", "backend": "torch"}, r"leave backend='torch' out"),
        ({"weights": "int8", "device": "auto", "device_map": "auto"}, r"leave device_map='auto' out"),
        ({"weights": "int8", "device": "meta"}, r"on the CPU only, not on meta; give device='cpu'"),
        ({"weights": "int8", "dtype": "float16"}, r"would be slow here; leave it out.*float16"),
    ],
)
def test_refused_with_the_remedy(tiny_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load(tiny_folder, **options)


def test_checkpoints_take_it(tmp_path: Path) -> None:
    """A dense checkpoint by its folder is quantised too; a mixture of experts is refused, with what fits."""
    options: dict[str, Any] = {"device": "cpu", "dtype": "bfloat16", "weights": "int8"}
    model = load_model(str(CLONED["sdar"] / "checkpoint"), **options)
    assert isinstance(model.denoiser, KernelDenoiser)
    assert model.denoiser.spec.name.endswith("with int8 weights")
    found = model.engine().generate([Request([3, 4, 5], SamplingConfig(max_new_tokens=8))])[0]
    assert found.usage.numerics == "row-invariant int8"
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["SDARMoeForCausalLM"], "vocab_size": 40}))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(OptionError, match=r"weights='int8' computes .* leave weights out"):
        load_model(str(tmp_path), **options)
    with pytest.raises(OptionError, match=r"leave backend='torch' out"):
        load_model(str(CLONED["sdar"] / "checkpoint"), **options, backend="torch")


def test_numbers_that_int8_cannot_hold(tmp_path: Path) -> None:
    """With the weight's size and the remedy."""
    place = shutil.copytree(CLONED["sdar"] / "checkpoint", tmp_path / "sdar")
    tensors = load_file(place / "model.safetensors")
    name = next(name for name in tensors if "gate_proj" in name)
    tensors[name][0, 0] = torch.inf
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not finite.*leave int8 out"):
        load_model(str(place), device="cpu", dtype="bfloat16", weights="int8")


def test_slow_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no fast implementation serves, the reasons are given."""

    class Slow:
        @staticmethod
        def promises(*_: Any) -> bool:
            return False

    class Found:
        name = "reference"

        @staticmethod
        def load() -> type[Slow]:
            return Slow

    monkeypatch.setattr(quantised, "choose", lambda *_: Found())
    shape = decoding.DecoderShape(2, 64, 4, 2, 16, 96, 259, 1e-5)
    with pytest.raises(OptionError, match="would be slow here"):
        quantised.check_int8(torch.device("cpu"), torch.bfloat16, shape)
