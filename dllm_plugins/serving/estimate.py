"""How much memory the weights of a model will take, as far as its files tell before it is loaded."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dllm_kernels.blocks import IN_BLOCK
from dllm_kernels.blocks import Kind
from dllm_plugins.default_model import base_model
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.families.quantised import ROUNDED
from dllm_plugins.serving.settings import Loading

_DEFAULT = "dllm"
_HUB_ID = r"[\w-][\w.-]*/[\w.-]+"
#: Seconds until the hub counts as unreachable.
_PATIENCE = 5.0
#: Types of numbers, as safetensors calls them, that become the type which is asked for; and bytes of larger others.
_FLOATS = ("F64", "F32", "F16", "BF16")
_BYTES = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}


def before_loading(loading: Loading) -> int | None:
    """Bytes of its weights once it is loaded; None where nobody knows.

    Of a GGUF file those of the file, which some ways to compute it unpack.

    :raises OptionError: for a dtype or a device that there is not.
    """
    place = str(loading.options.get("base") or loading.place)
    path = Path(place).expanduser()
    if path.is_file():
        return path.stat().st_size
    if place == _DEFAULT:
        return base_model.GGUF_SIZE
    counts = _in_folder(path) if path.is_dir() else _on_hub(place) if re.fullmatch(_HUB_ID, place) else None
    return _bytes(counts, loading) if counts else None


def _bytes(counts: Mapping[str, int], loading: Loading) -> int:
    """Of so many numbers of each type."""
    device = best_device(str(loading.options.get("device") or "auto"))
    dtype = choose_dtype(str(loading.options.get("dtype") or "auto"), device)
    weights = loading.options.get("weights")
    size = Kind[weights].size / IN_BLOCK if weights in ROUNDED else 1 if weights == "int8" else dtype.itemsize
    return round(sum(count * (size if kind in _FLOATS else _BYTES.get(kind, 1)) for kind, count in counts.items()))


def _in_folder(folder: Path) -> Mapping[str, int]:
    """How many numbers of each type its files hold, by their headers."""
    from safetensors import safe_open

    found = Counter[str]()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  it is no mapping
                part = opened.get_slice(name)
                found[part.get_dtype()] += math.prod(part.get_shape())
    return found


def _on_hub(name: str) -> Mapping[str, int] | None:
    """The same of a repository: of its copy in the cache, else by what the hub says, unless HF_HUB_OFFLINE is set."""
    from huggingface_hub import HfApi
    from huggingface_hub import constants
    from huggingface_hub import snapshot_download

    # Its validators, the connection and the disk raise what they like.
    with suppress(Exception):
        if found := _in_folder(Path(snapshot_download(name, local_files_only=True))):
            return found
    if constants.HF_HUB_OFFLINE:
        return None
    with suppress(Exception):
        told = HfApi().get_safetensors_metadata(name, timeout=_PATIENCE).parameter_count
        return {str(kind): count for kind, count in told.items()}
    return None
