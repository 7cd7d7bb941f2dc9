"""The default model's files for llama.cpp, made once from its weights and kept in the cache folder."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from dllm_plugins.default_model.base import Base
from dllm_plugins.default_model.base_model import base_folder
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.errors import OptionError
from dllm_plugins.files.cache import cache_folder
from dllm_plugins.files.progress import Progress
from dllm_plugins.files.progress import quiet
from dllm_plugins.files.whole import made_once
from dllm_plugins.gguf.adapter import write_adapter
from dllm_plugins.gguf.header import read_header
from dllm_plugins.llama_cpp.convert import convert_base
from dllm_plugins.llama_cpp.placed import ARCHITECTURE
from dllm_plugins.llama_cpp.placed import PlacedModel
from dllm_plugins.llama_cpp.placed import write_placed
from dllm_plugins.llama_cpp.quantise import TYPES
from dllm_plugins.llama_cpp.tri_mode import LlamaTriModeDenoiser
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message

#: Goes up when files are written differently, so that older ones are made anew.
_REVISION = 1
#: By `dtype`: the type of the base's weights, that of the adapter's, and that of keys and values.
_TYPES = {
    "auto": ("BF16", torch.bfloat16, "F16"),
    "bfloat16": ("BF16", torch.bfloat16, "F16"),
    "float16": ("F16", torch.float16, "F16"),
    "float32": ("F32", torch.float32, "F32"),
}


def load_denoiser(
    base: Base, denoiser: Path, shape: LlamaShape, spec: ModelSpec, options: LoadOptions
) -> LlamaTriModeDenoiser:
    """Base and adapter on llama.cpp.

    `weights` is one of llama.cpp's types such as "Q8_0", which quantises the base. `dtype` is that of
    the weights otherwise; keys and values are float32 where it is, else float16.

    :param denoiser: the file with the low-rank weights.
    :raises OptionError: for options that have no effect here.
    :raises CheckpointError: if a file is damaged or of another model.
    :raises GgufError: if llama.cpp is not installed or fails.
    """
    quant, dtype, cache = choose_types(options)
    if quant in TYPES:
        spec = replace(spec, name=f"{spec.name} with {quant} weights")
    model = PlacedModel(base_file(base, quant))
    return LlamaTriModeDenoiser(model, adapter_file(denoiser, shape, dtype), spec, cache)


def choose_types(options: LoadOptions) -> tuple[str, torch.dtype, str]:
    """The type of the base's weights, that of the adapter's, and that of keys and values.

    :raises OptionError: for options that have no effect on llama.cpp.
    """
    if options.device_map is not None or options.device not in ("auto", "cpu"):
        option, value = ("device", options.device) if options.device_map is None else ("device_map", options.device_map)
        raise OptionError(message("{}={!r}: llama.cpp runs here on the CPU; leave it out", Option(option), value))
    if options.dtype not in _TYPES:
        raise OptionError(message("{dtype}={!r} is unknown; use {}", options.dtype, ", ".join(map(repr, _TYPES))))
    quant, dtype, cache = _TYPES[options.dtype]
    if options.weights == "auto":
        return quant, dtype, cache
    if options.weights.upper() not in TYPES:
        raise OptionError(
            message(
                "{weights}={!r} is none of llama.cpp's types; use one of {}, or leave it out",
                options.weights,
                ", ".join(TYPES),
            )
        )
    if options.dtype == "bfloat16":
        raise OptionError(
            message(
                "{dtype}='bfloat16' has no effect beside {weights}={!r}: keys and values are float16 "
                "or float32; leave one of them out",
                options.weights,
            )
        )
    return options.weights.upper(), torch.bfloat16, cache


def base_file(base: Base, quant: str, progress: Progress = quiet) -> Path:
    """The base's weights in a graph whose rotation is placed apart; see :mod:`~dllm_plugins.llama_cpp.placed`.

    :param quant: one of :data:`dllm_plugins.llama_cpp.convert.QUANTS`.
    :raises CheckpointError: if it is no plain Llama, or there is too little room.
    :raises GgufError: if llama.cpp is needed to quantise and fails.
    """

    def make(part: Path) -> None:
        spare = part.with_name(f"{part.name}.unpacked")
        spare.mkdir()
        plain = part.with_name(f"{part.name}.plain")
        convert_base(base.as_folder(spare / base_folder().name), plain, quant, progress=progress)
        shutil.rmtree(spare)
        write_placed(read_header(plain), part)

    return _cached(base.whose, f"base-{quant}", base.files(), make)


def adapter_file(denoiser: Path, shape: LlamaShape, dtype: torch.dtype) -> Path:
    """The denoiser's own weights as an adapter of such a base.

    :raises CheckpointError: if the weights are damaged, or another base's.
    """

    def make(part: Path) -> None:
        write_adapter(load_low_rank(denoiser, shape, dtype), shape, ARCHITECTURE, part)

    return _cached(denoiser, f"adapter-{dtype}".replace("torch.", ""), [denoiser], make)


def _cached(origin: Path, kind: str, sources: list[Path], make: Callable[[Path], None]) -> Path:
    """A file made from others, until they change: then it is made again and the old one removed."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    whose, which = _digest(str(origin.resolve())), _digest(f"{_REVISION} {states}")
    return made_once(cache_folder() / "gguf", f"{kind}-{whose}", f"{which}.gguf", make)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
