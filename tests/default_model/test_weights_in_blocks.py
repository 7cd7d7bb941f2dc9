"""The default base is multiplied as its GGUF file holds it, and answers as its dequantised weights do."""

from pathlib import Path

import pytest

from dllm_kernels.compiled import library
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.default_model import base_model
from dllm_plugins.default_model import load as default_model
from dllm_plugins.default_model.stored import read_stored
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.models import load_model

BLOCKS = "Q4_1, Q8_0"


@pytest.mark.slow
@pytest.mark.skipif(library.why_not() is not None, reason=str(library.why_not()))
def test_answers_are_those_of_the_dequantised_weights() -> None:
    """Greedy and drawn, in company, in every mode; statistics say what was multiplied."""
    requests = [
        Request([1, 4093, 198 + turn], SamplingConfig(mode=mode, max_new_tokens=6, temperature=0.8 * turn, seed=5))
        for mode in default_model.MODES
        for turn in range(2)
    ]
    found = {}
    for weights in ("auto", "blocks", "dequantised"):
        model = load_model("dllm", weights=weights, device="cpu", dtype="float32")
        finishes = model.engine().generate(requests)
        found[weights] = [finish.tokens for finish in finishes]
        wanted = "float32" if weights == "dequantised" else BLOCKS
        assert {finish.usage.weights for finish in finishes} == {wanted} == {model.denoiser.spec.weights}
        assert finishes[0].usage.as_dict()["weights"] == wanted
    assert found["auto"] == found["blocks"] == found["dequantised"]


def test_blocks_that_are_not_there_are_refused(tiny_folder: Path) -> None:
    """A base in the hub's format has none; torch multiplies none."""
    with pytest.raises(OptionError, match=r"weights='blocks' multiplies a GGUF file's blocks, and .* holds none"):
        load_model("dllm", base=tiny_folder, denoiser=tiny_folder.parent / "denoiser.safetensors", weights="blocks")
    with pytest.raises(OptionError, match="weights='block' is unknown; use 'auto' or 'blocks' or 'blocks_int8' or"):
        load_model("dllm", weights="block")


@pytest.mark.slow
def test_torch_does_not_multiply_blocks() -> None:
    """What is asked for by name is refused where it is not so."""
    with pytest.raises(OptionError, match="weights='blocks' needs the compiled kernels"):
        load_model("dllm", weights="blocks", backend="torch", device="cpu")


@pytest.mark.parametrize("kept", [3, 100_000, 1_900_000])
def test_a_file_that_was_cut_is_an_error_with_the_remedy(kept: int, tmp_path: Path) -> None:
    """In the header, in the metadata, or among the tensors."""
    cut = tmp_path / "base.gguf"
    with base_model.gguf_path().open("rb") as file:
        cut.write_bytes(file.read(kept))
    with pytest.raises(CheckpointError, match=r"base.gguf is damaged .* setup --force"):
        read_stored(cut)
