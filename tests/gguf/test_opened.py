"""What a GGUF file is, found out from its header alone: no llama.cpp is needed."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from dllm_plugins import plugins
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.spec import make_spec
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.llama_cpp.load import auto
from dllm_plugins.llama_cpp.load import check_options
from dllm_plugins.llama_cpp.load import with_stored
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import auto_backend
from dllm_plugins.models import registered

CONFIG = {
    "architectures": ["SDARForCausalLM"],
    "model_type": "sdar",
    "hidden_act": "silu",
    "vocab_size": 40,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "block_size": 4,
    "eos_token_id": 3,
    "retry_token_id": 7,
}


def write(folder: Path, architecture: str, **metadata: Any) -> Path:
    """A file with nothing but an embedding; underscores in names stand for dots, twice for themselves."""
    path = folder / "file.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    for key, value in metadata.items():
        name = key.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((40, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def spec_of(path: Path, **options: Any) -> ModelSpec:
    """As `load_model` makes it."""
    checkpoint = open_gguf(path)
    return make_spec(str(path), checkpoint, None, with_stored(checkpoint, LoadOptions(**options)), plugins.modes())


def test_a_file_of_ours_is_the_checkpoint(tmp_path: Path) -> None:
    """Family, ids, block, stops and preset come from the configs in it."""
    path = write(
        tmp_path,
        "qwen3",
        dllm__config=json.dumps(CONFIG),
        dllm__generation_config=json.dumps({"eos_token_id": [3, 5]}),
        dllm__family="sdar",
        dllm__mask_token_id=39,
    )
    spec = spec_of(path)
    assert (spec.vocabulary, spec.context, spec.mask_id, spec.block_length) == (40, 64, 39, 4)
    assert spec.stop_ids == {3, 5}
    assert spec.ids["retry_token_id"] == 7
    assert spec.samplers["diffusion"] == "sdar"
    assert spec.cache == "exact"
    assert spec_of(path, mask_id=38).mask_id == 38


def test_a_file_of_llama_cpp_s_converter(tmp_path: Path) -> None:
    """The graph tells the family, the tokenizer's keys the ids, the embedding the vocabulary."""
    path = write(
        tmp_path,
        "dream",
        tokenizer__ggml__mask_token_id=39,
        tokenizer__ggml__eos_token_id=3,
        tokenizer__ggml__eot_token_id=4,
        diffusion__shift_logits=True,
    )
    checkpoint = open_gguf(str(path))
    spec = make_spec(str(path), checkpoint, None, LoadOptions(), plugins.modes())
    assert checkpoint.layout.name == "dream"
    assert (spec.vocabulary, spec.context, spec.mask_id, spec.eos_id) == (40, 64, 39, 3)
    assert spec.stop_ids >= {3, 4}
    assert spec.shifted
    assert spec.holds


def test_an_ordinary_file_needs_a_family(tmp_path: Path) -> None:
    """Said, it is checked against the graph."""
    path = write(tmp_path, "qwen3", tokenizer__ggml__eos_token_id=3)
    with pytest.raises(CheckpointError, match=r"ordinary 'qwen3' file.*family=\.\.\., one of a2d, idlm, sdar, wedlm$"):
        open_gguf(path)
    with pytest.raises(CheckpointError, match=r"'gpt2' file, which no family decodes$"):
        open_gguf(write(tmp_path, "gpt2"))
    path = write(tmp_path, "qwen3", tokenizer__ggml__eos_token_id=3)
    with pytest.raises(CheckpointError, match="unknown family 'luck'"):
        open_gguf(path, "luck")
    with pytest.raises(CheckpointError, match=r"'qwen3' file, which family 'fast_dllm_v2' is not.*qwen2 or dream"):
        open_gguf(path, "fast_dllm_v2")
    checkpoint = open_gguf(path, "sdar")
    with pytest.raises(CheckpointError, match="mask_id="):
        make_spec(str(path), checkpoint, None, LoadOptions(), plugins.modes())
    assert make_spec(str(path), checkpoint, None, LoadOptions(mask_id=39), plugins.modes()).mask_id == 39


def test_files_that_contradict_themselves(tmp_path: Path) -> None:
    """Each is named with what is wrong."""
    with pytest.raises(CheckpointError, match=r"shift_logits=True.*'llada'"):
        open_gguf(write(tmp_path, "llada", diffusion__shift_logits=True))
    with pytest.raises(CheckpointError, match=r"dllm\.config of .*no JSON"):
        open_gguf(write(tmp_path, "qwen3", dllm__config="{"))
    with pytest.raises(CheckpointError, match=r"dllm\.config of .* is no JSON object"):
        open_gguf(write(tmp_path, "qwen3", dllm__config="[]"))
    with pytest.raises(CheckpointError, match="'bert' file"):
        open_gguf(write(tmp_path, "bert"), "bert_chat")
    with pytest.raises(CheckpointError, match=r"nowhere\.gguf"):
        open_gguf(tmp_path / "nowhere.gguf")


@pytest.mark.parametrize(
    "given",
    [
        {"base": "folder"},
        {"denoiser": "file"},
        {"device_map": "auto"},
        {"weights": "Q4_0"},
        {"weights": "int8", "backend": "llama_cpp"},
        {"compile": True},
        {"backend": "torch"},
        {"device": "cuda"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_options_without_effect_raise(given: dict[str, Any]) -> None:
    """Each names the option and its value."""
    option, value = next(iter(given.items()))
    with pytest.raises(OptionError, match=f"{option}={value!r}"):
        check_options("x.gguf", LoadOptions(**given))


def test_auto_is_llama_cpp(tmp_path: Path) -> None:
    """Nothing else computes these files."""
    path = write(tmp_path, "llada")
    assert auto_backend(str(path)).backend == "llama_cpp"
    with pytest.raises(CheckpointError, match="family="):
        auto(str(write(tmp_path, "llama")), LoadOptions(), registered())
