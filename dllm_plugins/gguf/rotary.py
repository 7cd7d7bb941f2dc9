"""The rotary embedding of a config, as llama.cpp's keys and tensors say it."""

import math
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.architectures import Architecture
from dllm_plugins.gguf.architectures import Metadata
from dllm_plugins.gguf.architectures import head_size
from dllm_plugins.messages import message

#: YaRN's speeds in graphs that read none (llama.cpp's src/llama-hparams.h).
_FAST, _SLOW = 32.0, 1.0


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
        raise _refused(f"partial_rotary_factor={part}", found)
    keys: Metadata = {"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": size}
    factors = None
    if kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    elif kind == "yarn":
        keys |= _yarn(config, rope, found)
    elif kind == "llama3" and found.factors:
        factors = _factors(config, float(rope["rope_theta"]), size)
    elif kind != "default":
        raise _refused(f"rope_type={kind!r}", found)
    keys |= _temperature(rope, found)
    return {f"{found.name}.{key}": value for key, value in keys.items()}, factors


def _refused(what: str, found: Architecture) -> CheckpointError:
    return CheckpointError(
        message(
            "config.json says {}, which llama.cpp's {!r} is not known to compute; use {backend}='torch'",
            what,
            found.name,
        )
    )


def _yarn(config: Any, rope: dict[str, Any], found: Architecture) -> Metadata:
    """Both compute the same ramp; only the factor of the attention's length is told in another way."""
    speeds = float(rope.get("beta_fast") or _FAST), float(rope.get("beta_slow") or _SLOW)
    if rope.get("factor") is None or not rope.get("truncate", True):
        raise _refused(f"rope_type='yarn' with factor={rope.get('factor')} and truncate={rope.get('truncate')}", found)
    if speeds != (_FAST, _SLOW) and not found.tempered:
        raise _refused(f"rope_type='yarn' with beta_fast={speeds[0]} and beta_slow={speeds[1]}", found)
    _, attention = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    factor = float(rope["factor"])
    keys: Metadata = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": factor,
        "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
        "rope.scaling.attn_factor": float(attention) / (0.1 * math.log(factor) + 1.0 if factor > 1.0 else 1.0),
    }
    if found.tempered:
        keys |= {"rope.scaling.yarn_beta_fast": speeds[0], "rope.scaling.yarn_beta_slow": speeds[1]}
    return keys


def _temperature(rope: dict[str, Any], found: Architecture) -> Metadata:
    """Queries grow with the logarithm of how many of the first context's lengths they are away."""
    growth = float(rope.get("llama_4_scaling_beta") or 0.0)
    if not growth:
        return {}
    if not found.tempered:
        raise _refused(f"llama_4_scaling_beta={growth}", found)
    return {
        "attention.temperature_scale": growth,
        "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
    }


def _factors(config: Any, theta: float, size: int) -> Tensor:
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    return (plain / scaled.double()).float()
