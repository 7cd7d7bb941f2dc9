"""A diffusion model back in its family's original format.

A layout only says how stored tensors become those of the class. Every one of its pieces
is a view of what was stored, so writing goes the same way: empty tensors of the stored
shapes are translated, and the model's weights are copied into the pieces.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from torch.nn.modules.module import _IncompatibleKeys

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import read_mapped
from dllm_plugins.families.presets import with_preset
from dllm_plugins.families.redundant import repeats
from dllm_plugins.files.replacing import replacing
from dllm_plugins.storage import plain_config
from dllm_transformers.arguments import DTYPE_KEYS
from dllm_transformers.opening import plain

#: Arguments of save_pretrained whose values mean what is done anyway.
_NEUTRAL = {"is_main_process": True, "push_to_hub": False, "safe_serialization": True, "state_dict": None}


def shapes(checkpoint: Checkpoint) -> dict[str, torch.Size]:
    """The stored tensors' names and shapes; what only repeats the config is not written again."""
    return {name: tensor.shape for name, tensor in read_mapped(checkpoint).items() if not repeats(name)}


def weight(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    """A weight by the name a layout gives it; experts, which the class stacks, one by one."""
    if name in state:
        return state[name]
    prefix, _, rest = name.partition(".experts.")
    number, _, part = rest.partition(".")
    if part == "down_proj.weight":
        stacked = state.get(f"{prefix}.experts.down_proj")
        return None if stacked is None else stacked[int(number)]
    if part in ("gate_proj.weight", "up_proj.weight"):
        stacked = state.get(f"{prefix}.experts.gate_up_proj")
        return None if stacked is None else stacked[int(number)].chunk(2)[part == "up_proj.weight"]
    return None


def original_tensors(
    state: Mapping[str, Tensor], stored: Mapping[str, torch.Size], checkpoint: Checkpoint, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The model's weights under their original names.

    :raises CheckpointError: for a weight that is not in memory, or whose place was not found.
    """
    found = {name: torch.empty(shape, dtype=dtype) for name, shape in stored.items()}
    storages = {tensor.untyped_storage().data_ptr() for tensor in found.values()}
    for name, piece in checkpoint.layout.tensors(found, checkpoint.config).items():
        value = weight(state, name)
        if value is None or value.is_meta or value.shape != piece.shape:
            raise CheckpointError(f"{name} is not in memory in its stored shape; save a model that is loaded whole")
        if piece.untyped_storage().data_ptr() not in storages:
            raise CheckpointError(f"{name} cannot be written back; save model.native instead, in transformers' format")
        piece.copy_(value)
    return found


def take_original(model: Any, given: Mapping[str, Tensor], stored: Mapping[str, torch.Size]) -> _IncompatibleKeys:
    """Write weights that go by their original names into a model, as a saved folder holds them.

    :param given: all of them, or those of a shard.
    :return: names that were not given, and those that are none.
    :raises CheckpointError: for a weight of another shape.
    """
    known = {name: tensor for name, tensor in given.items() if name in stored}
    state, checkpoint = model.native.state_dict(), model.checkpoint
    with torch.no_grad():
        for name, piece in checkpoint.layout.tensors(known, checkpoint.config).items():
            value = weight(state, name)
            if value is None or value.shape != piece.shape:
                raise CheckpointError(
                    f"{name} has the shape {tuple(piece.shape)}, which is not the model's; save it again"
                )
            value.copy_(piece)
    return _IncompatibleKeys(sorted(stored.keys() - known), sorted(given.keys() - known))


def save(
    model: Any,
    folder: Any,
    stored: Mapping[str, torch.Size],
    *args: Any,
    max_shard_size: int | str = "5GB",
    **kwargs: Any,
) -> None:
    """See :meth:`~dllm_transformers.DiffusionModelForCausalLM.save_pretrained`."""
    # In transformers' order.
    kwargs |= zip(("is_main_process", "state_dict", "push_to_hub"), args, strict=False)
    for name, value in kwargs.items():
        if value is not None and value != _NEUTRAL.get(name):
            raise OptionError(f"{name}={value!r} is not supported when a diffusion checkpoint is saved; leave it out")
    with torch.no_grad():
        tensors = original_tensors(model.native.state_dict(), stored, model.checkpoint, model.native.dtype)
    opened = model.opened
    config = with_preset(plain_config(model.config.original()), opened.name, model.checkpoint, opened.options.preset)
    config |= {key: str(model.native.dtype).removeprefix("torch.") for key in DTYPE_KEYS if key in config}
    with replacing(folder) as place:
        save_torch_state_dict(tensors, place, max_shard_size=max_shard_size, metadata={"format": "pt"})
        (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _save_generation_config(model, place)


def _save_generation_config(model: Any, place: Path) -> None:
    """The checkpoint's own entries, even those of other classes, under those of the model."""
    found = {**model.checkpoint.generation, **plain(model.generation_config.to_diff_dict())}
    text = json.dumps(found, indent=2) + "\n"
    (place / "generation_config.json").write_text(text, encoding="utf-8")
