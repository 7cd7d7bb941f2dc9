"""GGUF files as models of the engine: llama.cpp or our kernels compute the passes, all else is any checkpoint's."""

from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from typing import Any

from gguf import GGMLQuantizationType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import GgufError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import check_invariant
from dllm_plugins.families.batching import refuse_together
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.presets import preset_of
from dllm_plugins.families.spec import known_modes
from dllm_plugins.families.spec import make_spec
from dllm_plugins.families.templates import speaking
from dllm_plugins.gguf.decoded import denoiser_of
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.gguf.opened import open_gguf
from dllm_plugins.gguf.relabel import with_memory
from dllm_plugins.gguf.tokenizer import tokenizer_of
from dllm_plugins.gguf.values import check_values
from dllm_plugins.llama_cpp.choosing import KERNELS
from dllm_plugins.llama_cpp.choosing import LLAMA_CPP
from dllm_plugins.llama_cpp.choosing import UNORDERED
from dllm_plugins.llama_cpp.choosing import backend_of
from dllm_plugins.llama_cpp.choosing import wants_weights
from dllm_plugins.llama_cpp.denoiser import LlamaCppDenoiser
from dllm_plugins.llama_cpp.library import INSTALL
from dllm_plugins.llama_cpp.library import library
from dllm_plugins.llama_cpp.model import GgufModel
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.models import Chosen
from dllm_plugins.models import Model
from dllm_plugins.models import Registered

PACKAGE = "llama_cpp_python"
BACKENDS = ("auto", KERNELS, LLAMA_CPP)
#: Types of keys and values, by the name of torch's.
CACHES = {"float16": "F16", "float32": "F32"}
#: Options of other loaders, and why they are none here.
FOREIGN = {
    "base": "it is of the default model",
    "denoiser": "it is of the default model",
    "device_map": "it runs on the CPU",
    "weights": "they are as the file has them; `llm dllm gguf --quant` writes others",
    "compile": "what computes it is compiled",
}


def load(name: str, options: LoadOptions, registered: Registered) -> Model:
    """Load a GGUF file; see :class:`~dllm_plugins.load_options.LoadOptions`.

    `dtype` is what our kernels compute in, and with llama.cpp that of the keys and values in the cache: "float16"
    if it is left to "auto", unless the file's matrices are float32.

    :param registered: the families and modes there are.
    :raises CheckpointError: for a file that is missing, damaged, unknown or unclear.
    :raises OptionError: for options of another kind of model.
    :raises GgufError: if llama.cpp is needed and not installed, or refuses the file.
    """
    check_options(name, options)
    checkpoint = open_gguf(name, options.family, registered.families)
    backend = backend_of(name, checkpoint, options).backend
    if backend == LLAMA_CPP:
        check_order(checkpoint)
    tokenizer = text_of(checkpoint)
    spec = make_spec(name, checkpoint, tokenizer, with_stored(checkpoint, options), registered.modes)
    if backend == KERNELS:
        denoiser = denoiser_of(checkpoint, spec, options)
        check_invariant(options, denoiser.spec)
        return Model(name, denoiser, tokenizer)
    refuse_together(options, name)
    cache = cache_type(name, options.dtype, checkpoint.header)
    # Before a copy is made that nothing could load.
    check_values(checkpoint.header)
    library()
    model = GgufModel(with_memory(checkpoint.header))
    return Model(name, LlamaCppDenoiser(model, spec, cache), tokenizer)


def cache_type(name: str, dtype: str, header: Header) -> str:
    """What llama.cpp calls the type of keys and values.

    :raises OptionError: for a dtype that they cannot have.
    """
    if dtype == "auto":
        matrices = {tensor.type for tensor in header.tensors.values() if len(tensor.shape) > 1}
        return "F32" if matrices == {GGMLQuantizationType.F32} else "F16"
    if dtype not in CACHES:
        raise OptionError(
            message(
                "{dtype}={!r} cannot be had with {}, whose weights stay as they are in the file; keys "
                "and values can be {}, or 'auto'",
                dtype,
                name,
                " or ".join(map(repr, CACHES)),
            )
        )
    return CACHES[dtype]


def check_order(checkpoint: Checkpoint) -> None:
    """Refuse families that no order of llama.cpp's calls computes, before a file is loaded.

    :raises GgufError: naming the family.
    """
    if checkpoint.layout.attention in UNORDERED:
        raise GgufError(
            f"{checkpoint.folder}: family {checkpoint.layout.name!r} puts tokens in another order than their "
            f"positions, and llama.cpp takes positions in order only; leave its backend out"
        )


def with_stored(checkpoint: GgufCheckpoint, options: LoadOptions) -> LoadOptions:
    """Options, with the preset and the mask of the file's conversion where none is given now."""
    stored = checkpoint.header.metadata
    mask = stored.get("dllm.mask_token_id") if options.mask_id is None else options.mask_id
    try:
        return replace(options, preset=options.preset or stored.get("dllm.preset"), mask_id=mask)
    except OptionError as error:
        where = f"{checkpoint.folder}, in what its conversion left there"
        raise CheckpointError(message("{}: {}; download or convert it again", where, error.detail)) from error


def text_of(checkpoint: GgufCheckpoint) -> Any:
    """The tokenizer, with the chat template that its family is spoken to with."""
    return speaking(tokenizer_of(checkpoint.header), checkpoint.layout)


def check_options(name: str, options: LoadOptions) -> None:
    """Refuse what has no effect on a GGUF file.

    :raises OptionError: naming the option.
    """
    default = LoadOptions()
    for option, reason in FOREIGN.items():
        value = getattr(options, option)
        if option == "weights" and (options.backend == KERNELS or wants_weights(options)):
            continue
        if value != getattr(default, option):
            raise OptionError(
                message("{}={!r} is of no use to {}: {}; leave it out", Option(option), value, name, reason)
            )
    if options.backend not in BACKENDS:
        raise OptionError(
            message("{backend}={!r} cannot run {}; use {}", options.backend, name, " or ".join(map(repr, BACKENDS)))
        )
    if options.device not in ("auto", "cpu"):
        raise OptionError(message("{device}={!r} cannot run {}; use 'cpu' or 'auto'", options.device, name))


def auto(name: str, options: LoadOptions, registered: Registered) -> Chosen:
    """Which backend `auto` is for a file, and why.

    :raises CheckpointError: if its header is damaged.
    """
    checkpoint = open_gguf(name, options.family, registered.families)
    preset = with_stored(checkpoint, options).preset
    modes = known_modes(name, checkpoint, preset, registered.modes)
    sampler = preset_of(name, checkpoint, options.preset or preset)
    return replace(backend_of(name, checkpoint, options), modes=modes, sampler=str(sampler))


def installed() -> str:
    """The version of llama.cpp's package, or how to install one."""
    try:
        return f"llama-cpp-python {version(PACKAGE)}"
    except PackageNotFoundError:
        return f"not installed: {INSTALL}"
