"""Which device and dtype a model runs on; models larger than one device."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from dllm_kernels.decoder import AnyWeights
from dllm_kernels.private_torch import has_avx512_bfloat16
from dllm_plugins.errors import OptionError
from dllm_plugins.files.reading import reading
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import message

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def best_device(name: str) -> torch.device:
    """A torch device by name; "auto" is an accelerator if torch has one, else the CPU.

    :raises OptionError: for a device torch does not know or does not have.
    """
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found if found is not None else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(message("{device}={!r} cannot be used ({}); use 'cpu' or 'auto'", name, reason)) from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """A dtype by name; "auto" is bfloat16 where the hardware computes in it, else float32.

    :raises OptionError: for an unknown name.
    """
    if name == "auto":
        if device.type == "cpu":
            # Where torch cannot tell, float32 is the safe choice.
            return torch.bfloat16 if has_avx512_bfloat16() else torch.float32
        return torch.bfloat16
    if name not in DTYPES:
        raise OptionError(message("{dtype}={!r} is unknown; use auto, {}", name, ", ".join(DTYPES)))
    return DTYPES[name]


def _devices(
    config: Mapping[str, Any], layers: int, device_map: str | dict[str, str | int]
) -> Callable[[str], torch.device]:
    """Where each module of the hub's names goes, by accelerate."""
    if isinstance(device_map, str):
        if device_map != "auto":
            raise OptionError(
                message("{device_map}={!r} is unknown; use 'auto' or a mapping from module to device", device_map)
            )
        accelerate = need("accelerate", message("{device_map}={!r}", device_map))
        from transformers import AutoConfig
        from transformers import AutoModelForCausalLM

        with reading("config.json"), accelerate.init_empty_weights():
            native = AutoConfig.for_model(**config)
            skeleton = AutoModelForCausalLM.from_config(native, trust_remote_code=False)
        skeleton.tie_weights()
        places: dict[str, str | int] = accelerate.infer_auto_device_map(
            skeleton, no_split_module_classes=[type(skeleton.model.layers[0]).__name__]
        )
    else:
        places = device_map

    def find(module: str) -> torch.device:
        name = module
        while name not in places and name:
            name = name.rpartition(".")[0]
        if name not in places:
            raise OptionError(f"device_map gives no device for {module!r}; add it, or a '' entry for all the rest")
        if places[name] == "disk":
            raise OptionError(
                "device_map puts layers on disk, which is not supported; use a smaller model or more memory"
            )
        return torch.device(places[name])

    for index in range(layers):
        find(f"model.layers.{index}")
    return find


def place(
    config: Mapping[str, Any],
    base: AnyWeights,
    device: torch.device,
    device_map: str | dict[str, str | int] | None,
) -> AnyWeights:
    """Move weights to where they run; a head that is the embedding stays so.

    :param config: of the base, by which accelerate divides it.
    :raises OptionError: if a device map is incomplete.
    """
    find: Callable[[str], torch.device] = (
        (lambda _module: device) if device_map is None else _devices(config, base.shape.layers, device_map)
    )
    home = find("model.embed_tokens")
    devices = [find(f"model.layers.{index}") for index in range(base.shape.layers)]
    layers = tuple(layer.to(target) for layer, target in zip(base.layers, devices, strict=True))
    embedding = base.embedding.to(home)
    head = embedding if base.tied else base.head.to(home)
    return replace(base, embedding=embedding, head=head, norm=base.norm.to(home), layers=layers)
