"""Numbers that contradict the weights: refused before anything of their size is made."""

import faulthandler
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from safetensors.torch import save_file
from transformers import AutoConfig
from transformers import AutoModelForCausalLM

from dllm_plugins import load_model
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.models import auto_backend
from dllm_transformers import DiffusionModelForCausalLM
from dllm_transformers import export

from ..gguf.checkpoints import MASK
from ..gguf.checkpoints import make

#: Each would take hours or terabytes if it were believed; the second of each is within what some model has.
SIZES = {
    "num_hidden_layers": (10**12, 1000),
    "vocab_size": (10**12, 10**7),
    "hidden_size": (10**12, 2**21),
    "intermediate_size": (10**12, 2**21),
    "num_attention_heads": (10**12, 2**21),
    "num_key_value_heads": (10**12, 2**21),
    "max_position_embeddings": (10**12, 0),
    "block_size": (10**12, 2**15),
    "num_labels": (10**12, 2**40),
}
EXPERTS = {"num_experts": (10**12, 2**15), "moe_intermediate_size": (10**12, 2**21)}


@pytest.fixture(autouse=True)
def watched() -> Iterator[None]:
    """A number that is believed ends the run with a traceback, not the machine."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def _with(folder: Path, **values: Any) -> str:
    position = folder / "config.json"
    position.write_text(json.dumps({**json.loads(position.read_text()), **values}))
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "key"),
    [*(("sdar", key) for key in SIZES), *(("sdar_moe", key) for key in (*EXPERTS, "num_hidden_layers"))],
)
def test_no_number_is_believed(tmp_path: Path, kind: str, key: str) -> None:
    """By any loader; what is refused is a matter of the checkpoint."""
    folder = make(tmp_path / kind, kind)
    for value in (SIZES | EXPERTS)[key]:
        position = _with(folder, **{key: value})
        with pytest.raises(CheckpointError):
            load_model(position, mask_id=MASK, dtype="float32", device="cpu")
        with pytest.raises(CheckpointError):
            DiffusionModelForCausalLM.from_pretrained(position, mask_id=MASK)
        if value == 10**12:
            with pytest.raises(CheckpointError, match=key):
                auto_backend(position, mask_id=MASK)
            with pytest.raises(CheckpointError, match=key):
                AutoConfig.from_pretrained(position)


@pytest.mark.parametrize("key", ["n_layers", "d_model", "n_heads", "mlp_hidden_size", "embedding_size"])
def test_under_other_names(tmp_path: Path, key: str) -> None:
    """Families have their own."""
    position = _with(make(tmp_path / "llada", "llada"), **{key: 10**12})
    with pytest.raises(CheckpointError, match=key):
        load_model(position, mask_id=MASK, dtype="float32", device="cpu")


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_labels"])
def test_of_an_exported_checkpoint(tiny_folder: Path, tmp_path: Path, key: str) -> None:
    """The Auto classes make up no layers."""
    made = export(tmp_path / "made", tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")
    for value in (10**12, 1000) if key == "num_hidden_layers" else (10**12,):
        with pytest.raises(CheckpointError, match=key):
            AutoModelForCausalLM.from_pretrained(_with(made, **{key: value}))


def test_an_exported_checkpoint_that_lacks_a_weight(tiny_folder: Path, tmp_path: Path) -> None:
    """Nothing is made up for it."""
    made = export(tmp_path / "made", tiny_folder, tiny_folder.parent / "denoiser.safetensors", "float32")
    tensors = load_file(made / "model.safetensors")
    del tensors["denoiser.chain.up"]
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"no tensor .*chain\.up.*export"):
        AutoModelForCausalLM.from_pretrained(made)


def test_a_copy_with_sound_numbers_loads(tmp_path: Path) -> None:
    """The loaders above do take what these checkpoints are."""
    folder = make(tmp_path / "sdar", "sdar")
    copy = shutil.copytree(folder, tmp_path / "copy")
    load_model(str(copy), mask_id=MASK, dtype="float32", device="cpu")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("llada2", {"topk_group": 64}),
        ("llada2", {"topk_group": 0}),
        ("llada2", {"n_group": 3}),
        ("llada2", {"num_experts_per_tok": 0}),
        ("sdar_moe", {"num_experts_per_tok": 9}),
        ("llada_moe", {"num_experts_per_tok": 100}),
    ],
)
def test_experts_that_no_router_can_choose(tmp_path: Path, kind: str, values: dict[str, int]) -> None:
    """When loaded, not by the first pass."""
    position = _with(make(tmp_path / kind, kind), **values)
    options: dict[str, Any] = {"preset": "llada2.0"} if kind == "llada2" else {}
    with pytest.raises(CheckpointError, match=next(iter(values))):
        load_model(position, mask_id=MASK, dtype="float32", device="cpu", **options)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mask_token_id", True), ("eos_token_id", [3, True]), ("pad_token_id", False), ("partial_rotary_factor", True)],
)
def test_true_is_no_number(tmp_path: Path, key: str, value: Any) -> None:
    """Python would take it for 1, and a mask of that id for meant."""
    position = _with(make(tmp_path / "sdar", "sdar"), **{key: value})
    with pytest.raises(CheckpointError, match=f"{key}.*number"):
        auto_backend(position)
    with pytest.raises(OptionError, match="mask_id=True"):
        auto_backend(position, mask_id=True)
