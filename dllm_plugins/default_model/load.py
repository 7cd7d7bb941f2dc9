"""The tri-mode default: SmolLM2-135M-Instruct with a gated low-rank denoiser on top.

Clean tokens run the unchanged base, so the prefix cache is exact and mode `ar` *is* the
base model. The base's shift is kept: a clean row at position p predicts p + 1, an open
row for position p sits at rotary position p - 1. Facts and figures: docs/default-model.md.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from dllm_kernels.blocks import Weight
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import devices_of
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import passed_over
from dllm_plugins import plugins
from dllm_plugins.default_model.base import Base
from dllm_plugins.default_model.base import open_base
from dllm_plugins.default_model.base_model import SETUP
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.placement import best_device
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.denoisers.placement import place
from dllm_plugins.denoisers.rope import Rope
from dllm_plugins.denoisers.tri_mode import TriModeDenoiser
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import llama_from
from dllm_plugins.errors import OptionError
from dllm_plugins.families.batching import check_invariant
from dllm_plugins.families.batching import refuse_together
from dllm_plugins.families.quantised import IN_BLOCKS
from dllm_plugins.families.quantised import STORED
from dllm_plugins.families.quantised import check_int8
from dllm_plugins.families.quantised import in_form
from dllm_plugins.families.quantised import wants_int8
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.models import Backend
from dllm_plugins.models import Chosen
from dllm_plugins.models import Model
from dllm_plugins.models import Preset

NAME = "dllm"
MODES = ("speculative", "diffusion", "ar", "repair", "alternating")
BLOCK_LENGTH = 8
#: What passes of several rows cost depends on the processor: with AVX2 alone none pays, see docs/benchmarks.md.
DRAFT_LENGTH = 2


def shipped_denoiser() -> Path:
    """The denoiser weights that come with this package."""
    return Path(str(files("dllm_plugins") / "data" / "smollm2-135m-denoiser.safetensors"))


def make_spec(shape: LlamaShape, stop_ids: frozenset[int]) -> ModelSpec:
    """What the engine must know of the tri-mode model; a denoiser says itself what its numerics are."""
    return ModelSpec(
        name=NAME,
        vocabulary=shape.vocabulary,
        mask_id=shape.vocabulary,
        context=shape.context,
        stop_ids=stop_ids,
        block_length=BLOCK_LENGTH,
        draft_length=DRAFT_LENGTH,
        modes=MODES,
        draft_head=True,
        cache="exact",
        numerics="approximate",
        attention="causal",
    )


def load(options: LoadOptions) -> Model:
    """Load base and denoiser; see :class:`~dllm_plugins.load_options.LoadOptions`.

    :raises DownloadError: if the default base was never set up.
    :raises CheckpointError: if a file is missing, damaged or of another model.
    :raises OptionError: for options of other checkpoints.
    """
    for option in ("family", "preset", "mask_id"):
        if getattr(options, option) is not None:
            raise OptionError(
                message("{}={!r} is of no use to {}; leave it out", Option(option), getattr(options, option), NAME)
            )
    if options.compile:
        raise OptionError(
            message("{compile}={!r} is of no use to {}, which has kernels; leave it out", options.compile, NAME)
        )
    backend = plugins.find("backend", options.backend, plugins.backends())
    source = open_base(options.base)
    if backend is LLAMA_CPP:
        refuse_together(options, NAME)
        return Model(NAME, build_llama_cpp(source, options), source.tokenizer())
    device = best_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    int8 = wants_int8(options, device, STORED)
    config = source.config
    shape = LlamaShape.from_config(config)
    if int8:
        check_int8(device, dtype, shape)
    if options.weights in IN_BLOCKS:
        _check_blocks(options, choose(KERNEL, device, dtype, shape.sizes()).name)
    base = in_form(llama_from(_tensors(source, options), shape, str(source.place), dtype), options.weights)
    low_rank = load_low_rank(Path(options.denoiser or shipped_denoiser()), shape, dtype)
    spec = make_spec(shape, source.stop_ids(shape.vocabulary))
    base = place(config, base, device, options.device_map)
    denoiser = build_kernels(base, low_rank, spec, int8=True) if int8 else backend.build(base, low_rank, spec)
    check_invariant(options, denoiser.spec)
    return Model(NAME, denoiser, source.tokenizer())


def _check_blocks(options: LoadOptions, decoder: str) -> None:
    """Refuse blocks where they would be dequantised, or multiplied by the slow reference.

    :param decoder: the best one here.
    :raises OptionError: then.
    """
    ours = options.backend in (AUTO.name, KERNELS.name) and options.device_map is None
    if not ours or decoder != "compiled":
        needed = "{weights}={!r} needs the compiled kernels; leave {backend} and {device} out, and run `{}`"
        raise OptionError(message(needed, options.weights, SETUP))


def _tensors(source: Base, options: LoadOptions) -> Mapping[str, Weight]:
    """The base's weights, as they are stored.

    :raises OptionError: for blocks of a base that has none.
    :raises CheckpointError: for a file that cannot be read.
    """
    if options.weights in IN_BLOCKS and not source.in_blocks:
        needed = "{weights}={!r} multiplies a GGUF file's blocks, and {} holds none; leave it out"
        raise OptionError(message(needed, options.weights, source.place))
    return source.tensors()


def build_torch(base: AnyWeights, low_rank: LowRankWeights, spec: ModelSpec) -> TriModeDenoiser:
    """The torch backend."""
    return TriModeDenoiser(base, low_rank, spec, plain=True)


def build_kernels(base: AnyWeights, low_rank: LowRankWeights, spec: ModelSpec, int8: bool = False) -> TriModeDenoiser:
    """The backend of our kernels; with `int8` the base's matrices are quantised and emptied."""
    return TriModeDenoiser(base, low_rank, spec, int8=int8)


def build_llama_cpp(source: Base, options: LoadOptions) -> Denoiser:
    """The backend of llama.cpp, which computes files of its own that are made of the base once.

    :raises OptionError: for a base that is no plain Llama, whose graph rotates elsewhere.
    """
    from dllm_plugins.default_model.llama_cpp import load_denoiser

    shape = LlamaShape.from_config(source.config)
    if shape != replace(shape, rope=Rope(), qkv_bias=False, out_bias=False, mlp_bias=False, head_norms=False):
        raise OptionError(
            message(
                "{backend}='llama_cpp' computes plain Llamas for {}, and {} has biases, norms of its heads or "
                "stretched positions; leave it out",
                NAME,
                source.place,
            )
        )
    spec = make_spec(shape, source.stop_ids(shape.vocabulary))
    # Verifying and drafting are calls of their own there, which cost more than the drafts save.
    spec = replace(spec, modes=("ar", *(mode for mode in spec.modes if mode != "ar")))
    return load_denoiser(source, Path(options.denoiser or shipped_denoiser()), shape, spec, options)


def build_auto(base: AnyWeights, low_rank: LowRankWeights, spec: ModelSpec) -> Denoiser:
    """The kernels where all weights are in one place and a row-invariant decoder computes them, else torch."""
    places = {base.embedding.device, *devices_of(base)}
    chosen = _auto(base.shape, base.embedding.device, base.embedding.dtype, one_place=len(places) == 1)
    return (build_kernels if chosen.backend == "kernels" else build_torch)(base, low_rank, spec)


def auto(options: LoadOptions) -> Chosen:
    """Which backend `auto` is, and why.

    :raises DownloadError: if the default base was never set up.
    """
    device = best_device(options.device)
    if wants_int8(options, device, STORED):
        return Chosen("kernels", "int8 weights run on the block decoder only", modes=MODES)
    # Of a repository the one small file that is asked for.
    shape = LlamaShape.from_config(open_base(options.base, ("config.json",)).config)
    return _auto(shape, device, choose_dtype(options.dtype, device), one_place=options.device_map is None)


def _auto(shape: DecoderShape, device: torch.device, dtype: torch.dtype, *, one_place: bool) -> Chosen:
    if not one_place:
        return Chosen("torch", "the block decoder needs all weights on one device", modes=MODES)
    sizes = shape.sizes()
    found, faster = choose(KERNEL, device, dtype, sizes), passed_over(KERNEL, device, dtype, sizes)
    if not found.load().promises(device, dtype, sizes):
        reason = f"of the block decoder only {found.name!r} runs here, which does not promise to be row-invariant"
        return Chosen("torch", reason, faster, MODES)
    return Chosen(
        "kernels",
        f"the block decoder {found.name!r} computes it row-invariantly, which `speculative` needs, and llama.cpp took "
        "1.4 times as long where both were measured (docs/benchmarks.md)",
        faster,
        MODES,
    )


AUTO = Backend("auto", "the kernels where they fit, else torch", build_auto)
KERNELS = Backend("kernels", "our block decoder, on the CPU", build_kernels)
TORCH = Backend("torch", "PyTorch on any device it has", build_torch)
LLAMA_CPP = Backend("llama_cpp", "llama.cpp on the CPU: a GGUF base, and an adapter for open rows", build_llama_cpp)
DEFAULT = Preset(NAME, "the tri-mode default: speculative, diffusion, ar", load, auto)
