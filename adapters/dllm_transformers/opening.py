"""What `from_pretrained` of a diffusion model is given, sorted out before a weight is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from dllm_plugins import plugins
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.files import ADAPTER
from dllm_plugins.families.files import base_name
from dllm_plugins.families.files import base_revision
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import is_adapter
from dllm_plugins.families.spec import make_spec
from dllm_plugins.families.spec import modes_of
from dllm_plugins.families.spec import stop_ids
from dllm_plugins.files.reading import reading
from dllm_plugins.load_options import LoadOptions
from dllm_transformers.arguments import HUB
from dllm_transformers.arguments import dtype_of
from dllm_transformers.arguments import refuse_old_config
from dllm_transformers.diffusion_config import DiffusionConfig
from dllm_transformers.options import HONOURED

#: What is said of a checkpoint where its files do not say it, whether rows may share calls, and how it is quantised.
SAID = ("family", "preset", "mask_id", "batch_invariant", "weights")


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint and how to load it."""

    name: str
    checkpoint: Checkpoint
    dtype: torch.dtype | None
    options: LoadOptions


def opened(name: str | Path, config: DiffusionConfig | None, dtype: Any, options: dict[str, Any]) -> OpenedCheckpoint:
    """Find a checkpoint and check what was said of it.

    :param config: in place of the folder's own config.json, as changed by the user.
    :raises CheckpointError: for a checkpoint that is missing, damaged or unknown.
    :raises OptionError: for options that do not fit.
    """
    said = {name: options[name] for name in SAID if options.get(name) is not None}
    load = LoadOptions(**said)
    hub = {key: options[key] for key in HUB if options.get(key) is not None}
    folder = hub_folder(name, **hub) / (options.get("subfolder") or "")
    if config is not None:
        refuse_old_config(folder)
    checkpoint = open_checkpoint(folder, load.family, plugins.families())
    if config is not None:
        checkpoint = checkpoint.with_config(config.original())
    if load.preset is not None:
        modes_of(str(name), checkpoint, load.preset, plugins.modes())
    if load.mask_id is not None:
        make_spec(str(name), checkpoint, None, load, plugins.modes())
    return OpenedCheckpoint(str(name), checkpoint, dtype_of(dtype), load)


def base_and_adapter(name: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Which checkpoint to load, and what to hand to `load_adapter`; None without an adapter.

    :param options: of `from_pretrained`; what concerns adapters is taken out.
    :raises CheckpointError: for an adapter whose checkpoint cannot be had.
    :raises OptionError: for a name of an adapter where there is none.
    """
    said = dict(options.pop("adapter_kwargs", None) or {})
    called = options.pop("adapter_name", None)
    place = said.pop("_adapter_model_path", None)
    hub = {key: options[key] for key in HUB if options.get(key) is not None}
    if place is None:
        folder = hub_folder(name, **hub) / (options.get("subfolder") or "")
        if not is_adapter(folder):
            if called is not None:
                raise OptionError(
                    f"adapter_name={called!r}: {name} is no adapter; leave it out, and use load_adapter()"
                )
            return name, None
        name, place = base_name(folder), folder
        options.pop("subfolder", None)
    else:
        # By the Auto classes, which have found the base's name and not its revision.
        hub.pop("revision", None)
        folder = hub_folder(place, (ADAPTER,), **hub, revision=said.get("revision")) / (said.get("subfolder") or "")
    options["revision"] = base_revision(folder)
    return name, {"peft_model_id": str(place), "adapter_name": called, "adapter_kwargs": said}


def config_of_base(config: Any, adapter: Any, options: Mapping[str, Any]) -> Any:
    """The config as it was handed over; None where the Auto classes read it of another revision than the base's."""
    read = isinstance(config, DiffusionConfig) and not config.is_changed()
    return None if adapter is not None and options.get("revision") and read else config


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
