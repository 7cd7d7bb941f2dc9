"""Any checkpoint we know, from a folder or a hub id, as a model the engine decodes."""

import weakref
from dataclasses import fields
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from typing import Any

import torch

from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import shape_of
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import passed_over
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.gemma import GemmaDenoiser
from dllm_plugins.denoisers.kernel import KernelDenoiser
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import check_invariant
from dllm_plugins.families.batching import wants_invariant
from dllm_plugins.families.checkpoint import Checkpoint
from dllm_plugins.families.checkpoint import load_checkpoint
from dllm_plugins.families.checkpoint import open_checkpoint
from dllm_plugins.families.compiling import compile_model
from dllm_plugins.families.compiling import wants_compiled
from dllm_plugins.families.files import TokenIds
from dllm_plugins.families.files import has_tokenizer
from dllm_plugins.families.files import hub_folder
from dllm_plugins.families.files import load_tokenizer
from dllm_plugins.families.files import tokenizer_class
from dllm_plugins.families.presets import preset_of
from dllm_plugins.families.quantised import QUANTISED
from dllm_plugins.families.quantised import check_quantised
from dllm_plugins.families.quantised import wants_quantised
from dllm_plugins.families.spec import known_modes
from dllm_plugins.families.spec import make_spec
from dllm_plugins.families.templates import speaking
from dllm_plugins.files.quietly import quiet_transformers
from dllm_plugins.files.reading import reading
from dllm_plugins.libraries.classes import is_a
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.models import Chosen
from dllm_plugins.models import Model
from dllm_plugins.models import Registered

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers import PreTrainedTokenizerBase

#: Options that only the default model takes.
FOREIGN = ("base", "denoiser")
#: What computes the passes: transformers' own classes, the block decoder of `dllm_kernels`, or that where it fits.
BACKENDS = ("auto", "torch", "kernels")
#: The classes whose forward the block decoder computes.
DECODED = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


@quiet_transformers()
def load(name: str, options: LoadOptions, registered: Registered) -> Model:
    """Load a checkpoint; see :class:`~dllm_plugins.load_options.LoadOptions`.

    :param name: a folder in the hub's format, or a hub id.
    :param registered: the families and modes there are.
    :raises CheckpointError: for anything that is missing, damaged, unknown or unclear.
    :raises OptionError: for options of another kind of model.
    """
    default = LoadOptions()
    for option in (item.name for item in fields(LoadOptions) if item.name in FOREIGN):
        if getattr(options, option) != getattr(default, option):
            raise OptionError(
                message("{}={!r} is of no use to {}; leave it out", Option(option), str(getattr(options, option)), name)
            )
    if options.backend == "llama_cpp":
        raise OptionError(
            message(
                "{backend}='llama_cpp' computes GGUF files; convert {} with `llm dllm gguf` and load "
                "the file it writes",
                name,
            )
        )
    if options.backend not in BACKENDS:
        raise OptionError(
            message("{backend}={!r} cannot run {}; use {}", options.backend, name, " or ".join(map(repr, BACKENDS)))
        )
    checkpoint = open_checkpoint(hub_folder(name), options.family, registered.families)
    device = best_device(options.device)
    quantised = wants_quantised(options, device)
    compiled = wants_compiled(options, device, checkpoint.layout.native(checkpoint.config))
    invariant = wants_invariant(options, device, checkpoint.layout.native(checkpoint.config))
    backend = "kernels" if quantised else "torch" if compiled else options.backend
    dtype = choose_dtype(options.dtype, device)
    if backend == "kernels":
        fits_kernels(checkpoint, options)
    if quantised:
        check_quantised(options.weights, device, dtype, decoder_shape(checkpoint))
    tokenizer = tokenizer_of(checkpoint)
    spec = make_spec(name, checkpoint, tokenizer, options, registered.modes)
    if options.device_map is None:
        model = load_checkpoint(checkpoint, dtype)
        _moved(model, device)
    else:
        offload = TemporaryDirectory(prefix="dllm-offload-")
        model = load_checkpoint(checkpoint, dtype, options.device_map, offload.name)
        weakref.finalize(model, offload.cleanup)
    if backend == "auto":
        backend = _auto(checkpoint, options, model.device, model.dtype).backend
    if compiled:
        compile_model(model)
    denoiser = denoiser_of(model, checkpoint, spec, backend, options.weights, batch_invariant=invariant, plain=compiled)
    check_invariant(options, denoiser.spec)
    return Model(name, denoiser, tokenizer)


def auto(name: str, options: LoadOptions, registered: Registered) -> Chosen:
    """Which backend `auto` is for a checkpoint, and why.

    :raises CheckpointError: if its small files are missing or damaged.
    """
    checkpoint = open_checkpoint(hub_folder(name), options.family, registered.families)
    modes = known_modes(name, checkpoint, options.preset, registered.modes)
    sampler = str(preset_of(name, checkpoint, options.preset))
    return replace(_chosen(checkpoint, options), modes=modes, sampler=sampler)


def _chosen(checkpoint: Checkpoint, options: LoadOptions) -> Chosen:
    device = best_device(options.device)
    if wants_quantised(options, device):
        return Chosen("kernels", f"{options.weights} weights run on the block decoder only")
    if wants_compiled(options, device, checkpoint.layout.native(checkpoint.config)):
        return Chosen("torch", "torch.compile compiles transformers' own classes")
    return _auto(checkpoint, options, device, choose_dtype(options.dtype, device))


def _auto(checkpoint: Checkpoint, options: LoadOptions, device: torch.device, dtype: torch.dtype) -> Chosen:
    """A block decoder that computes row-invariantly is better than transformers' own class."""
    native = checkpoint.layout.native(checkpoint.config)
    if not decoded(native):
        return Chosen("torch", f"the block decoder does not compute a {native.__name__}")
    if options.device_map is not None:
        return Chosen("torch", "the block decoder needs all weights on one device")
    sizes = decoder_shape(checkpoint).sizes()
    try:
        found, faster = choose(KERNEL, device, dtype, sizes), passed_over(KERNEL, device, dtype, sizes)
    except KernelError as error:
        return Chosen("torch", str(error))
    if not found.load().promises(device, dtype, sizes):
        reason = f"of the block decoder only {found.name!r} runs here, which does not promise to be row-invariant"
        return Chosen("torch", reason, faster)
    return Chosen("kernels", f"the block decoder {found.name!r} computes it row-invariantly", faster)


def decoder_shape(checkpoint: Checkpoint) -> DecoderShape:
    """The sizes that the block decoder would compute with.

    :raises CheckpointError: for what it does not compute.
    """
    with reading(checkpoint.folder):
        return shape_of(checkpoint.native_config)


def _moved(model: Any, device: torch.device) -> None:
    """Onto a device, in place; transformers types its method as if it took a model."""
    model.to(device)


def decoded(native: type) -> bool:
    """Whether the block decoder computes a class; one derived from those may compute something else."""
    return native.__name__ in DECODED and is_a(native, native.__name__)


def fits_kernels(checkpoint: Checkpoint, options: LoadOptions) -> None:
    """Refuse, before weights are read, what the block decoder does not compute.

    :raises OptionError: with the class, or the option it excludes.
    """
    native = checkpoint.layout.native(checkpoint.config)
    if not decoded(native):
        known = ", ".join(DECODED)
        option, value = ("weights", options.weights) if options.weights in QUANTISED else ("backend", "kernels")
        raise OptionError(
            message(
                "{}={!r} computes {}, but family {!r} is a {}; leave {} out",
                Option(option),
                value,
                known,
                checkpoint.layout.name,
                native.__name__,
                Option(option),
            )
        )
    if options.device_map is not None:
        raise OptionError(
            message("{backend}='kernels' runs on one device; leave {device_map}={!r} out", options.device_map)
        )


def tokenizer_of(checkpoint: Checkpoint) -> "PreTrainedTokenizerBase | TokenIds":
    """The tokenizer with the chat template that its family is spoken to with; a stand-in if there is none.

    An adapter's own comes before that of its base.

    :raises CheckpointError: if it is damaged.
    """
    folder = next((place for place in (checkpoint.adapter, checkpoint.folder) if place and has_tokenizer(place)), None)
    if folder is None:
        return TokenIds(checkpoint.folder)
    tokenizer = load_tokenizer(folder, tokenizer_class(folder))
    return speaking(tokenizer, checkpoint.layout)  # type: ignore[no-any-return]


def denoiser_of(
    model: "PreTrainedModel",
    checkpoint: Checkpoint,
    spec: Any,
    backend: str = "torch",
    weights: str = "auto",
    *,
    batch_invariant: bool = True,
    plain: bool = False,
) -> Denoiser:
    """The denoiser around a loaded class; `weights` goes with backend "kernels", the last two with "torch"."""
    if backend == "kernels":
        return KernelDenoiser(model, spec, weights=weights)
    if is_a(type(model), "DiffusionGemmaForBlockDiffusion"):
        return GemmaDenoiser(model, spec, plain=plain)
    own_mask = checkpoint.layout.attention == "own"
    return NativeDenoiser(model, spec, own_mask=own_mask, batch_invariant=batch_invariant, plain=plain)
