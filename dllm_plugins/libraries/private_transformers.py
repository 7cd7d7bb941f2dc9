"""What transformers and accelerate do not promise to keep, each in one place.

A test says which of them a new version has changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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


def takes_attention(model: Any) -> bool:
    """Whether all of a model's attention is torch's own, and comes to a function that its config names."""
    return bool(model.config.get_text_config()._attn_implementation == "sdpa" and model._supports_attention_backend)


@contextmanager
def attending(model: Any, name: str) -> Iterator[None]:
    """A model's attention is another registered function for a while; the model stays as it was."""
    configs = list({id(config): config for config in (model.config, model.config.get_text_config())}.values())
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, old in zip(configs, before, strict=True):
            config._attn_implementation_internal = old


def rope_kinds(config: Any) -> set[str]:
    """How rotary frequencies are made, of all kinds of layers."""
    told: Any = getattr(config, "rope_parameters", None) or {}
    each = [told] if "rope_type" in told else [one for one in told.values() if isinstance(one, dict)]
    return {str(one.get("rope_type", "default")) for one in each}
