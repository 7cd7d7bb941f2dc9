"""What a checkpoint's files say of how its weights are stored, read before any weight is."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.reading import is_there
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.reading import without_keys
from dllm_plugins.messages import message

#: Where config.json says it: transformers and most tools, old compressed-tensors, MLX.
KEYS = ("quantization_config", "compression_config", "quantization")
#: Files beside config.json that say it in its place, with the method they are of.
BESIDE = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}
#: What mends every storage that is not read.
REMEDY = message(
    "use the repository of the unquantised weights ({weights}='int8' makes them smaller while loading), or write them "
    "with the tool that quantised these"
)


@dataclass(frozen=True)
class Storage:
    """How weights are stored.

    :param method: "" for plain weights, else what `quant_method` is in config.json.
    :param settings: what else is said of it.
    :param origin: where, for errors.
    """

    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    def refusal(self, reason: str) -> CheckpointError:
        """Why it is not read, and the remedy."""
        return CheckpointError(
            message("{} says that the weights are stored as {!r}: {}; {}", self.origin, self.method, reason, REMEDY)
        )


#: Weights as they are.
PLAIN = Storage()


def storage_of(config: Mapping[str, Any], folder: Path) -> Storage:
    """What config.json says, or a file beside it where config.json says nothing.

    :raises CheckpointError: if what is said cannot be understood.
    """
    for place in (config, config.get("text_config") or {}):
        for key in KEYS:
            if isinstance(place, Mapping) and place.get(key) is not None:
                return _understood(place[key], "", f"{folder / 'config.json'} ({key})")
    for name, method in BESIDE.items():
        if is_there(folder / name):
            found = read_object(folder / name)
            check_numbers(found, str(folder / name))
            return _understood(found, method, str(folder / name))
    return PLAIN


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same checkpoint with plain weights."""
    return without_keys(config, KEYS)


def _understood(found: Any, method: str, origin: str) -> Storage:
    if not isinstance(found, dict):
        raise CheckpointError(f"{origin} is {found!r}, where an object is needed; download the checkpoint again")
    # ModelOpt's own file has them one level deeper.
    inner = found.get("quantization")
    found = {**found, **inner} if isinstance(inner, dict) else found
    method = str(found.get("quant_method") or method or _guessed(found)).lower().replace("_", "-")
    return Storage(method, found, origin)


def _guessed(found: Mapping[str, Any]) -> str:
    """The method, where only its options are named, as by the first versions of the tools."""
    if found.get("load_in_8bit") or found.get("load_in_4bit"):
        return "bitsandbytes"
    if "config_groups" in found:
        return "compressed-tensors"
    return "mlx" if {"bits", "group_size"} <= found.keys() else "unknown"
