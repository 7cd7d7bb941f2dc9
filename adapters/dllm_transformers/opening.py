"""What `from_pretrained` of a diffusion model is given, sorted out before a weight is read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.spec import make_spec
from dllm_plugins.families.spec import modes_of
from dllm_plugins.families.spec import stop_ids
from dllm_plugins.files.reading import reading
from dllm_plugins.models import LoadOptions
from dllm_transformers.diffusion_config import DiffusionConfig
from dllm_transformers.diffusion_config import refuse_of_forward
from dllm_transformers.options import HONOURED

#: Of the hub; snapshots take them.
HUB = ("cache_dir", "force_download", "local_files_only", "revision", "token")
#: What the Auto classes and `pipeline` hand on to every class, and nothing here depends on.
_OF_NO_EFFECT = frozenset(
    {"_commit_hash", "_from_auto", "_from_pipeline", "adapter_kwargs", "code_revision", "low_cpu_mem_usage"}
    | {"proxies", "task", "trust_remote_code", "weights_only"}
)
#: What quantises while loading, elsewhere.
QUANTISING = ("quantization_config", "load_in_8bit", "load_in_4bit")
#: Attention that takes masks of four dimensions.
ATTENTION = ("eager", "sdpa")


@dataclass(frozen=True)
class Opened:
    """A checkpoint and how to load it."""

    name: str
    checkpoint: Checkpoint
    dtype: torch.dtype | None
    options: LoadOptions


def opened(name: str | Path, config: DiffusionConfig | None, dtype: Any, options: dict[str, Any]) -> Opened:
    """Find a checkpoint and check what was asked of it; takes what it knows out of `options`.

    :param config: in place of the folder's own config.json, as changed by the user.
    :raises CheckpointError: for a checkpoint that is missing, damaged or unknown.
    :raises OptionError: for options that do not fit.
    """
    load = LoadOptions(**{key: options.pop(key, None) for key in ("family", "preset", "mask_id")})
    hub = {key: options.pop(key) for key in HUB if key in options}
    folder = hub_folder(name, **hub) / (options.pop("subfolder", None) or "")
    checkpoint = open_checkpoint(folder, load.family)
    if config is not None:
        checkpoint = checkpoint.with_config(config.original())
    if load.preset is not None:
        modes_of(str(name), checkpoint, load.preset)
    if load.mask_id is not None:
        make_spec(str(name), checkpoint, None, load)
    if options.pop("use_safetensors", True) is False:
        raise OptionError("use_safetensors=False: only safetensors files are read; leave it out")
    for key in _OF_NO_EFFECT.intersection(options):
        options.pop(key)
    return Opened(str(name), checkpoint, _dtype(dtype), load)


def _dtype(asked: Any) -> torch.dtype | None:
    """A dtype by name or as it is; None for the checkpoint's own."""
    found = getattr(torch, asked, None) if isinstance(asked, str) and asked != "auto" else asked
    if asked is None or asked == "auto":
        return None
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise OptionError(f"dtype={asked!r} is unknown; use 'auto', torch.bfloat16, torch.float16 or torch.float32")
    return found


def refuse_rest(options: dict[str, Any]) -> None:
    """Raise for options that are left over.

    :raises OptionError: naming one.
    """
    refuse_of_forward(options)
    if options.get("gguf_file") is not None:
        raise OptionError(
            f"gguf_file={options['gguf_file']!r}: transformers would unpack it into weights that no family reads; "
            f"decode the file with load_model('.../{options['gguf_file']}') of dllm_plugins, or `llm -m` with its path"
        )
    for key, value in options.items():
        if value and key in QUANTISING:
            raise OptionError(
                f"{key}={value!r} is not supported by diffusion checkpoints; leave it out, and for smaller weights use "
                f"load_model(..., weights='int8') of dllm_plugins"
            )
        if value is not None and value is not False:
            raise OptionError(
                f"{key}={value!r} is not supported by diffusion checkpoints; leave it out (known: family, preset, "
                f"mask_id, dtype, device_map, offload_folder, attn_implementation)"
            )


def plain(generation: dict[str, Any]) -> dict[str, Any]:
    """What transformers' own class knows; other entries are options of a family's reference."""
    known = GenerationConfig().to_dict()
    return {name: value for name, value in generation.items() if name in known}


def generation_config(checkpoint: Checkpoint) -> GenerationConfig:
    """The checkpoint's own, or what its config says, with all ids that end its answers."""
    shipped = plain(checkpoint.generation)
    # Penalties and beams of a checkpoint's files belong to other ways of decoding: nothing here has a use for them.
    own = {name: value for name, value in shipped.items() if name in HONOURED}
    with reading(checkpoint.folder / "generation_config.json"):
        GenerationConfig(**shipped).validate()
        found = GenerationConfig(**own)
    text = {**(checkpoint.config.get("text_config") or {}), **checkpoint.config}
    for name in ("bos_token_id", "pad_token_id"):
        if getattr(found, name) is None:
            setattr(found, name, text.get(name))
    vocabulary = checkpoint.vocabulary
    ends = sorted(stop_ids(checkpoint) | {item for item in checkpoint.layout.stop_ids if item < vocabulary})
    found.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if found.pad_token_id is None and ends:
        found.pad_token_id = ends[0]
    # Configs say whether their own code cached; the engine decides that by the family.
    found.use_cache = True
    found.return_dict_in_generate = False
    return found
