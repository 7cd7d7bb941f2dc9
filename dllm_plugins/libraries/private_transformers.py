"""What transformers and accelerate do not promise to keep, each in one place.

A test says which of them a new version has changed.
"""

from typing import Any

import torch
from torch import Tensor
from torch import nn


def default_generation_options() -> dict[str, Any]:
    """What `generate` takes for each field of a generation config that is None."""
    from transformers import GenerationConfig

    found: dict[str, Any] = GenerationConfig._get_default_generation_params()
    return found


def arguments_of(pipeline: Any) -> dict[str, Any]:
    """What a pipeline was given for `generate` when it was made."""
    found: dict[str, Any] = getattr(pipeline, "_generate_kwargs", {})
    return found


def experts_of(config: Any) -> str | None:
    """The implementation of experts that a config asks for, or has by default once a model was made with it."""
    found: str | None = getattr(config, "_experts_implementation", None)
    return found


def can_set_experts(model: Any) -> bool:
    """Whether a model's experts take another implementation."""
    return bool(model._can_set_experts_implementation())


def gated(experts: nn.Module, rows: Tensor) -> Tensor:
    """Rows [..., 2 * inner] of gate and up projections, as [..., inner]."""
    module: Any = experts
    found: Tensor = module._apply_gate(rows)
    return found


def device_of(module: nn.Module, weight: Tensor) -> torch.device:
    """Where a module computes: where accelerate moves its weight for that, if it does."""
    hook: Any = getattr(module, "_hf_hook", None)
    return weight.device if hook is None else torch.device(hook.execution_device)
