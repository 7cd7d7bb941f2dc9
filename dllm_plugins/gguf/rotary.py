"""The rotary embedding of a config, as llama.cpp's keys and tensors say it."""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.architectures import Architecture
from dllm_plugins.gguf.architectures import Metadata
from dllm_plugins.gguf.architectures import head_size

#: Rotary embeddings that only divide frequencies: the same numbers at every length.
_FACTORED = ("llama3",)


def rotary(config: Any, found: Architecture) -> tuple[Metadata, Tensor | None]:
    """Keys, and what each frequency is divided by (float32 [rotated / 2]) if that is not one number.

    :param config: of transformers' class.
    :raises CheckpointError: for a scaling that the graph does not compute.
    """
    rope = dict(config.rope_parameters or {})
    kind = rope.get("rope_type", "default")
    part = float(rope.get("partial_rotary_factor") or 1.0)
    size = int(head_size(config) * part)
    if part != 1.0 and not found.partial:
        raise CheckpointError(
            f"config.json says partial_rotary_factor={part}, which llama.cpp's {found.name!r} does not compute; "
            "use backend='torch'"
        )
    keys: Metadata = {"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": size}
    factors = None
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    elif kind in _FACTORED and found.factors:
        factors = _factors(config, kind, float(rope["rope_theta"]), size)
    elif kind != "default":
        raise CheckpointError(
            f"config.json says rope_type={kind!r}, which is not known to be the same in llama.cpp's {found.name!r}; "
            "use backend='torch'"
        )
    return {f"{found.name}.{key}": value for key, value in keys.items()}, factors


def _factors(config: Any, kind: str, theta: float, size: int) -> Tensor:
    scaled, attention = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    if attention != 1.0:
        raise CheckpointError(f"rope_type={kind!r} scales attention by {attention}; use backend='torch'")
    plain = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / scaled.double()).float()
