"""Arguments of `from_pretrained`: each is honoured, asks for what is done anyway, or is refused with what to do.

transformers 5.24 takes those named here, besides the entries of config.json.
"""

from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import Any

import torch

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.replacing import finish
from dllm_plugins.files.replacing import read_config
from dllm_plugins.messages import shown

#: Of the hub; snapshots take them.
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token", "tqdm_class")
#: What a model is loaded in; it says nothing of its checkpoint.
DTYPE_KEYS = ("dtype", "torch_dtype")
#: What every class of ours honours.
SHARED = frozenset({"attn_implementation", "device_map", "subfolder", *DTYPE_KEYS, *HUB})
#: What has a meaning only where a device map spreads the weights.
SPREADING = ("max_memory", "offload_buffers", "offload_folder")
#: What is said of code, of which none is run, and of a pipeline's task.
_OF_CODE = ("code_revision", "task")
#: What the Auto classes and `pipeline` hand on to every class.
PASSED_OVER = frozenset({"_commit_hash", "_from_auto", "_from_pipeline", "trust_remote_code", *_OF_CODE})
#: What is so anyway; the opposite is refused.
_USUAL = {"low_cpu_mem_usage": True, "use_safetensors": True, "weights_only": True}

#: What wrappers name in every call of `forward`, and the value that is so anyway.
_OF_FORWARD = {
    "inputs_embeds": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "past_key_values": None,
    "use_cache": False,
}

_PARTS = "a checkpoint is loaded whole or not at all; leave it out"
_SAFE = "only safetensors files are read; convert the weights first"
_GONE = "transformers has no such option any more; leave it out"
_INT8 = (
    "give quantization_config=BitsAndBytesConfig(...), or weights='int8', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1' or 'Q8_0', "
    "which quantises for decoding on CPUs"
)
_ONE = "one process computes a pass; leave it out, and spread a model over devices with device_map"
_MERGED = (
    "only adapters of diffusion checkpoints are loaded; save what PEFT's merge_and_unload() returns, and load that"
)
_CODE = "kernels of the hub are code, and none is run; leave it out"
_REFUSED = {
    **dict.fromkeys(("ignore_mismatched_sizes", "output_loading_info"), _PARTS),
    **dict.fromkeys(("from_flax", "from_tf", "use_safetensors", "weights_only"), _SAFE),
    **dict.fromkeys(("_fast_init", "mirror", "offload_state_dict", "resume_download", "torchscript"), _GONE),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), _INT8),
    **dict.fromkeys(("device_mesh", "distributed_config", "tp_plan", "tp_size"), _ONE),
    **dict.fromkeys(("allow_all_kernels", "kernel_config", "use_kernels"), _CODE),
    "adapter_kwargs": _MERGED,
    "adapter_name": _MERGED,
    "device": "use device_map, or model.to(...)",
    "disable_mmap": "tensors are views of the files until they are taken; copy the files to a local disk instead",
    "experts_implementation": "the entry of config.json decides; change it there",
    "fusion_config": "transformers' classes compute as they are; leave it out",
    "generation_config": "set model.generation_config when it is loaded",
    "key_mapping": "the family says how tensors are called; leave it out",
    "low_cpu_mem_usage": "weights are never in memory twice; leave it out",
    "proxies": "set HTTPS_PROXY in the environment",
    "state_dict": "weights come from the checkpoint's files; load it, then use load_state_dict()",
    "use_auth_token": "it is called token",
    "use_flash_attention_2": "use attn_implementation",
    "quantization_config": "decode the base's own blocks by load_model('dllm'), or weights='int8' there",
    "weights": "quantised are load_model('dllm', weights='int8') of dllm_plugins, and GGUF files",
    "variant": "weights are in model.safetensors, or where its index says; use the folder or revision that has them so",
}


def checked(options: Mapping[str, Any], positional: tuple[Any, ...], honoured: frozenset[str]) -> dict[str, Any]:
    """The arguments that ask for something, if all of them can be honoured.

    :param positional: arguments behind the name, which transformers hands to the class.
    :param honoured: what the class takes besides :data:`SHARED`.
    :raises OptionError: naming one that would be ignored, and what to do instead.
    """
    if positional:
        raise OptionError(f"{shown(positional[0])} is an argument without a name, which has no meaning; leave it out")
    known = honoured | SHARED | {*SPREADING}
    asked = {name: value for name, value in options.items() if not _asks_for_nothing(name, value)}
    for name, value in asked.items():
        if name in SPREADING and options.get("device_map") is None:
            raise OptionError(f"{name}={shown(value)} has no effect without device_map; add device_map='auto'")
        if name not in known | PASSED_OVER:
            unknown = f"it is unknown to diffusion checkpoints; leave it out (known: {', '.join(sorted(known))})"
            raise OptionError(f"{name}={shown(value)}: {_REFUSED.get(name, unknown)}")
    return {name: value for name, value in asked.items() if name not in _OF_CODE}


def check_forward(options: Mapping[str, Any]) -> None:
    """Let through what PEFT's and TRL's wrappers hand to every model's `forward`, where it asks for nothing.

    :raises OptionError: naming what does.
    :raises TypeError: for a name that no `forward` has.
    """
    for name, value in options.items():
        if name not in _OF_FORWARD:
            raise TypeError(f"forward() got an unexpected keyword argument {name!r}")
        if value is not None and value is not _OF_FORWARD[name]:
            raise OptionError(f"{name}={shown(value)} has no effect on forward() of diffusion models; leave it out")


def without_next_token(forward: Any) -> Any:
    """What somebody puts in place of a model's `forward`, unless it is asked for what TRL computes of next tokens.

    :param forward: a bound method, as it is by then; anything else stays as it is.
    """
    if not isinstance(forward, MethodType):
        return forward
    inner = forward.__func__

    @wraps(inner)
    def checked(*args: Any, fused_lm_head: bool = False, **options: Any) -> Any:
        if fused_lm_head:
            raise OptionError(
                "fused_lm_head=True asks for log-probabilities of next tokens, which a diffusion model does not have; "
                "train with DiffusionSFTTrainer of dllm_transformers.sft, or with transformers.Trainer"
            )
        return inner(*args, **options)

    return MethodType(checked, forward.__self__)


def _asks_for_nothing(name: str, value: Any) -> bool:
    if name in _USUAL:
        return value is None or value is _USUAL[name]
    # The Auto classes fill in which repository an adapter would be looked for in.
    filled_in = name == "adapter_kwargs" and isinstance(value, dict) and value.keys() <= {"revision", "token"}
    return value is None or value is False or filled_in


def dtype_of(asked: Any) -> torch.dtype | None:
    """A dtype by name or as it is; None for the checkpoint's own.

    :raises OptionError: for anything that no weight is computed in.
    """
    found = getattr(torch, asked, None) if isinstance(asked, str) and asked != "auto" else asked
    if asked is None or asked == "auto":
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise OptionError(
            f"dtype={shown(asked)} is unknown; use 'auto', torch.bfloat16, torch.float16 or torch.float32"
        )
    return found


def entries_of(given: Any) -> dict[str, Any]:
    """config.json's entries, by a caller who hands them over as `config`, or says where that file or its folder is.

    :raises CheckpointError: if it cannot be read.
    :raises OptionError: for anything else, which would have no effect.
    """
    if isinstance(given, dict):
        return given
    if isinstance(given, str | Path):
        path = Path(given)
        return read_config(path) if path.is_dir() else read_object(path)
    raise OptionError(
        f"config= is a {type(given).__name__}, whose entries are no diffusion checkpoint's; give what "
        f"AutoConfig.from_pretrained finds for it, a dict of config.json's entries, or the path of such a file"
    )


def refuse_old_config(folder: Path) -> None:
    """Finish a save that was broken off, whose new weights do not go with a config that was read before.

    :raises CheckpointError: if there was such a save.
    """
    if finish(folder):
        raise CheckpointError(
            f"a save into {folder} had been broken off and is finished now; its config was read before: load it again"
        )
