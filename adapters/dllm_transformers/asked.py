"""Which generation options a user asked for, told from those that a host or a checkpoint fills in.

transformers merges four sources into one generation config: keyword arguments, a config that
is handed in, the model's own, and defaults; `pipeline` adds keyword arguments of its own. What a
user asked for is honoured or refused; what was filled in is honoured where it fits.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

from transformers import GenerationConfig

from dllm_plugins.libraries.private_transformers import arguments_of

#: Fields that say nothing of how to generate.
_NOT_OPTIONS = frozenset({"transformers_version"})


def option_names() -> frozenset[str]:
    """The fields of transformers' generation config."""
    return frozenset(name for name in vars(GenerationConfig()) if not name.startswith("_")) - _NOT_OPTIONS


def asked_for(
    model: Any, config: GenerationConfig | None, kwargs: Mapping[str, Any], caller: FrameType | None
) -> dict[str, Any]:
    """The generation options that the user of a `generate()` call set himself, None for those he unset.

    :param config: the generation config handed in, before anything was merged into it.
    :param kwargs: the call's keyword arguments.
    :param caller: the frame that called `generate()`.
    """
    given = _given_to_pipeline(caller)
    if given is not None:
        kwargs, config = given, given.get("generation_config")
    names, own = option_names(), model.generation_config
    found = _changed(own, names, None)
    if found:
        shipped = _shipped(model)
        found = {name: value for name, value in found.items() if value != getattr(shipped, name, None)}
    if config is not None and config is not own:
        found |= _changed(config, names, own)
    return found | {name: value for name, value in kwargs.items() if name in names}


def _changed(config: GenerationConfig, names: frozenset[str], other: GenerationConfig | None) -> dict[str, Any]:
    """Fields that are set, to another value than `other` has."""
    values = {name: getattr(config, name, None) for name in names}
    return {name: value for name, value in values.items() if value is not None and value != getattr(other, name, None)}


def _shipped(model: Any) -> GenerationConfig:
    """The generation config as the checkpoint has it."""
    known: GenerationConfig | None = getattr(model, "shipped_generation_config", None)
    if known is not None:
        return known
    try:
        found: GenerationConfig = GenerationConfig.from_pretrained(
            model.config.name_or_path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError):
        return GenerationConfig()
    return found


def _given_to_pipeline(caller: FrameType | None) -> dict[str, Any] | None:
    """What the user gave to the pipeline that calls `generate()`; None if another does.

    A pipeline's own defaults arrive as keyword arguments like any; what it was given itself
    stands in the call of its `forward`.
    """
    base = sys.modules.get("transformers.pipelines.base")
    pipeline = None if caller is None else caller.f_locals.get("self")
    if base is None or not isinstance(pipeline, base.Pipeline):
        return None
    frame = caller
    while frame is not None and frame.f_code is not base.Pipeline.forward.__code__:
        frame = frame.f_back
    given = {} if frame is None else dict(frame.f_locals.get("forward_params", {}))
    if "generation_config" in given:
        return given
    return {**arguments_of(pipeline), **given}
