"""Every argument of transformers' `from_pretrained`, on an original checkpoint and on one of our export."""

import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import GenerationConfig
from transformers import LlamaConfig
from transformers import PreTrainedModel

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_transformers import TriModeForCausalLM
from dllm_transformers import arguments

#: Arguments and values that are refused everywhere, with words of the remedy.
REFUSED: list[tuple[str, Any, str]] = [
    ("_fast_init", True, "no such option any more"),
    ("adapter_name", "x", "use load_adapter|merge_and_unload"),
    ("allow_all_kernels", True, "none is run"),
    ("device", "cpu", "use device_map"),
    ("device_map", "sideways", "device_map='sideways'.*leave it out"),
    ("device_mesh", object(), "device_map"),
    ("disable_mmap", True, "local disk"),
    ("distributed_config", {"tp_size": 2}, "device_map"),
    ("dtype", "int8", "use 'auto', torch.bfloat16"),
    ("dtype", "nonsense", "use 'auto', torch.bfloat16"),
    ("dtype", {"": "bfloat16"}, "use 'auto', torch.bfloat16"),
    ("experts_implementation", "eager", "entry of config.json"),
    ("from_flax", True, "only safetensors"),
    ("from_tf", True, "only safetensors"),
    ("fusion_config", {"patch_embeddings": True}, "leave it out"),
    ("ignore_mismatched_sizes", True, "whole or not at all"),
    ("kernel_config", {"a": 1}, "none is run"),
    ("key_mapping", {"a": "b"}, "leave it out"),
    ("load_in_4bit", True, "weights='int8'"),
    ("load_in_8bit", True, "weights='int8'"),
    ("low_cpu_mem_usage", False, "never in memory twice"),
    ("max_memory", {"cpu": "1GB"}, "add device_map='auto'"),
    ("mirror", "x", "no such option any more"),
    ("nonesuch", 3, "known: .*device_map"),
    ("offload_buffers", True, "add device_map='auto'"),
    ("offload_folder", "x", "add device_map='auto'"),
    ("offload_state_dict", True, "no such option any more"),
    ("proxies", {"http": "x"}, "HTTPS_PROXY"),
    ("quantization_config", {"load_in_8bit": True}, "weights='int8'"),
    ("resume_download", True, "no such option any more"),
    ("state_dict", {"a": torch.zeros(1)}, "load_state_dict"),
    ("torch_dtype", "int8", "use 'auto', torch.bfloat16"),
    ("torchscript", True, "no such option any more"),
    ("tp_plan", "auto", "device_map"),
    ("tp_size", 2, "device_map"),
    ("use_auth_token", "x", "called token"),
    ("use_flash_attention_2", True, "attn_implementation"),
    ("use_kernels", True, "none is run"),
    ("use_safetensors", False, "only safetensors"),
    ("variant", "fp16", "model.safetensors"),
    ("weights_only", False, "only safetensors"),
]
#: What is honoured, or asks for what is done anyway.
TAKEN: list[dict[str, Any]] = [
    {"cache_dir": "x", "force_download": False, "local_files_only": True, "token": False, "revision": "main"},
    {"low_cpu_mem_usage": True, "use_safetensors": True, "weights_only": True, "disable_mmap": False, "proxies": None},
    {"from_tf": False, "from_flax": False, "_fast_init": False, "load_in_8bit": False, "adapter_kwargs": {}},
    {"device_map": {"": "cpu"}, "max_memory": {"cpu": "9GB"}, "offload_buffers": True, "attn_implementation": "eager"},
    {"trust_remote_code": True, "code_revision": "x", "device_map": "auto", "torch_dtype": torch.float32},
]


@pytest.fixture(params=["llada", "checkpoint"])
def folder(request: pytest.FixtureRequest) -> Path:
    """An original checkpoint, and one of our export."""
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_refused(folder: Path, name: str, value: Any, words: str) -> None:
    """With the name, the value and what to do, never as a damaged checkpoint."""
    with pytest.raises(OptionError, match=words) as caught:
        AutoModelForCausalLM.from_pretrained(folder, **{name: value})
    assert "dtype=" in str(caught.value) or f"{name}=" in str(caught.value)


@pytest.mark.parametrize("options", TAKEN)
def test_taken(folder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    """The model is loaded as was said."""
    if "cache_dir" in options:
        options = {**options, "cache_dir": tmp_path}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    computes = getattr(model, "native", model)
    assert computes.config._attn_implementation == options.get("attn_implementation", "sdpa")
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_a_subfolder(folder: Path, tmp_path: Path) -> None:
    """It is where the files are; an argument without a name is none."""
    shutil.copytree(folder, tmp_path / "outer" / "inner")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "outer", subfolder="inner").dtype == torch.float32
    with pytest.raises(OptionError, match="without a name"):
        AutoModelForCausalLM.from_pretrained(folder, "float16")


def test_what_only_the_export_takes(checkpoint: Path, llada: Path) -> None:
    """transformers' own class has a report of loading, a generation config, and a place for weights without files."""
    config = GenerationConfig(max_new_tokens=3)
    found: Any = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True, generation_config=config)
    model, report = found
    assert not report["missing_keys"]
    assert model.generation_config.max_new_tokens == 3
    given: Any = TriModeForCausalLM.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert torch.equal(given.lm_head.weight, model.lm_head.weight)
    for options, words in (
        ({"output_loading_info": True}, "whole or not at all"),
        ({"generation_config": config}, "set model.generation_config"),
    ):
        with pytest.raises(OptionError, match=words):
            AutoModelForCausalLM.from_pretrained(llada, **options)


def test_entries_of_the_config(checkpoint: Path) -> None:
    """They may be given by name or as a whole; what the weights contradict is refused."""
    changed: Any = TriModeForCausalLM.from_pretrained(checkpoint, rms_norm_eps=0.5, use_cache=False)
    whole: Any = TriModeForCausalLM.from_pretrained(checkpoint, config=checkpoint / "config.json")
    assert (changed.config.rms_norm_eps, whole.config.rms_norm_eps) == (0.5, 1e-5)
    with pytest.raises(CheckpointError, match="num_hidden_layers=1"):
        TriModeForCausalLM.from_pretrained(checkpoint, num_hidden_layers=1)
    with pytest.raises(OptionError, match="config= is a LlamaConfig"):
        TriModeForCausalLM.from_pretrained(checkpoint, config=LlamaConfig())


def test_every_argument_is_known_by_name() -> None:
    """A version of transformers with another one shows it here."""
    source = inspect.getsource(PreTrainedModel.from_pretrained)
    names = {
        *re.findall(r'kwargs\.pop\(\s*"(\w+)"', source),
        *inspect.signature(PreTrainedModel.from_pretrained).parameters,
    }
    names |= set(re.findall(r'"(\w+)"', source.partition("for name in [")[2].partition("]")[0]))
    names -= {"cls", "pretrained_model_name_or_path", "model_args", "kwargs", "config", "gguf_file", "adapter_kwargs"}
    taken = arguments.SHARED | {*arguments.SPREADING} | arguments.PASSED_OVER
    assert len(names) > 40
    assert names - taken - {name for name, _, _ in REFUSED} == {"generation_config", "output_loading_info"}
