"""The load option `compile`: transformers' classes behind torch.compile, with a cache that lasts.

Sizes are symbols: a class is compiled once without keys in the cache, once with, and once
more each for a single token, whatever the lengths. What inductor made lies in the user's
cache, so that the next process finds it instead of running the C++ compiler again.
"""

import os
from collections.abc import Callable
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import platformdirs
import torch

from dllm_kernels.private_torch import each_length_its_own
from dllm_kernels.private_torch import missing_compiler
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.classes import is_a
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Where inductor keeps what it compiled, if the user says so.
VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def wants_compiled(options: LoadOptions, device: torch.device, native: type[Any]) -> bool:
    """Whether a compiled forward is asked for, before weights are read.

    :param native: transformers' class. Compiled, DiffusionGemma decoded other tokens in float32.
    :raises OptionError: for options that exclude it, and where there is no compiler for a CPU.
    """
    if not options.compile:
        return False
    if options.backend not in ("auto", "torch"):
        raise OptionError(
            message(
                "{compile}=True compiles transformers' own classes; leave {backend}={!r} or {compile} out",
                options.backend,
            )
        )
    if options.weights != "auto":
        raise OptionError(
            message(
                "{compile}=True keeps the weights as they are; leave {weights}={!r} or {compile} out", options.weights
            )
        )
    if options.device_map is not None:
        raise OptionError(
            message("{compile}=True runs on one device; leave {device_map}={!r} or {compile} out", options.device_map)
        )
    if is_a(native, "DiffusionGemmaForBlockDiffusion"):
        raise OptionError(message("{compile}=True decodes other tokens with {}; leave {compile} out", native.__name__))
    if device.type == "cpu":
        _check_compiler()
    return True


def _check_compiler() -> None:
    """Refuse now what inductor would refuse in the middle of the first request.

    :raises OptionError: with the compilers that were looked for.
    """
    tried = missing_compiler()
    if tried is not None:
        raise OptionError(
            message(
                "{compile}=True needs a C++ compiler on a CPU, and none was found ({}); install g++, "
                "name one in CXX, or leave {compile} out",
                tried,
            )
        )


def folder() -> Path:
    """Where compiled code is kept: what TORCHINDUCTOR_CACHE_DIR names, else the user's cache."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("dllm-plugins") / "inductor"


def compile_model(model: "PreTrainedModel") -> None:
    """Compile the forward of a model's body, in place; it happens at the first passes.

    Inductor has one cache in a process: :func:`folder` is set for all of it.
    """
    os.environ[VARIABLE] = str(folder())
    body: Any = model.base_model
    body.forward = _compiled(body.forward)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    # Models of one class would share a limit on compilations; PyTorch can count apart since 2.13.
    apart: dict[str, Any] = (
        {"isolate_recompiles": True} if "isolate_recompiles" in signature(torch.compile).parameters else {}
    )
    compiler: Callable[..., Any] = torch.compile
    fast = compiler(forward, dynamic=True, **apart)

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        # Lengths that happen to be equal would be taken for the same one, and compiled again when they differ.
        with each_length_its_own():
            return fast(*args, **kwargs)

    return run
