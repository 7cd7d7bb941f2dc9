"""What llama.cpp would compute otherwise, and what cannot be written, is refused with the remedy."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("llama_cpp", reason="pip install 'dllm-plugins[gguf]'")

from safetensors.torch import save_file

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.llama_cpp.convert import convert

from .checkpoints import KINDS
from .checkpoints import YARN
from .checkpoints import make

LLAMA3 = KINDS["llama3-rotary"].config["rope_parameters"]
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}


@pytest.mark.parametrize(
    ("name", "config", "reason"),
    [
        ("dream", {"head_dim": 8}, "4 heads of 8 in a width of 64"),
        ("rnd1", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("sdar_moe", {"mlp_only_layers": [0]}, "layers without experts"),
        ("sdar", {"rope_parameters": {**YARN, "beta_fast": 16.0}}, "beta_fast=16.0"),
        ("sdar", {"rope_parameters": {**YARN, "truncate": False}}, "truncate=False"),
        ("sdar", {"rope_parameters": {**YARN, "llama_4_scaling_beta": 0.5}}, "llama_4_scaling_beta=0.5"),
        ("sdar", {"rope_parameters": {**YARN, "rope_type": "dynamic"}}, "rope_type='dynamic'"),
        ("diffullama", {"rope_parameters": PARTIAL}, "partial_rotary_factor=0.5"),
        ("dream", {"rope_parameters": LLAMA3}, "rope_type='llama3'"),
        ("sdar", {"attention_bias": True}, "self_attn.o_proj.bias"),
        ("sdar", {"mask_token_id": 5000}, "mask_token_id=5000"),
    ],
)
def test_what_a_graph_computes_otherwise_is_refused(
    name: str, config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    folder = make(tmp_path / "folder", name, **config)
    with pytest.raises(CheckpointError, match=re.escape(reason)):
        convert(folder, tmp_path / "out.gguf", family=KINDS[name].family)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_classes_llama_cpp_has_no_graph_for_are_refused(tmp_path: Path) -> None:
    config = {"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "vocab_size": 20}
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no graph of llama\.cpp.*use backend='torch'"):
        convert(folder, tmp_path / "out.gguf")


def test_wrong_options_name_the_remedy(tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", "dream")
    with pytest.raises(OptionError, match=r"'Q9'.*Q4_0"):
        convert(folder, tmp_path / "out.gguf", "Q9")
    with pytest.raises(OptionError, match=r"preset='sdar'.*dreamon"):
        convert(folder, tmp_path / "out.gguf", preset="sdar")
    with pytest.raises(OptionError, match="a file in a folder that exists"):
        convert(folder, tmp_path)
    with pytest.raises(OptionError, match="a file in a folder that exists"):
        convert(folder, tmp_path / "none" / "out.gguf")
