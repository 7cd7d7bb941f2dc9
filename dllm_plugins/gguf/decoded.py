"""Which files the block decoder of :mod:`dllm_kernels` computes, and a denoiser of one."""

from collections.abc import Iterable

import torch

from dllm_kernels.blocks import CODED
from dllm_kernels.blocks import Kind
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import shape_of
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import choose
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.placement import choose_dtype
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.families.hub import DECODED
from dllm_plugins.families.hub import decoded
from dllm_plugins.families.quantised import IN_BLOCKS
from dllm_plugins.families.quantised import STORED
from dllm_plugins.families.quantised import check_int8
from dllm_plugins.families.quantised import in_form
from dllm_plugins.families.quantised import wants_int8
from dllm_plugins.gguf.architectures import ARCHITECTURES
from dllm_plugins.gguf.header import Header
from dllm_plugins.gguf.names import native_name
from dllm_plugins.gguf.opened import GgufCheckpoint
from dllm_plugins.gguf.stored import FACTORS
from dllm_plugins.gguf.stored import stored_weights
from dllm_plugins.gguf.tensors import BLOCKS
from dllm_plugins.gguf.tensors import TYPES
from dllm_plugins.gguf.values import check_values
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message

DEVICE = torch.device("cpu")


def check_decoded(checkpoint: GgufCheckpoint) -> None:
    """Refuse, by its header, a file that the block decoder does not compute.

    :raises OptionError: naming what it does not compute.
    :raises CheckpointError: for a damaged file, and one of several parts.
    """
    header = checkpoint.header
    if int(header.metadata.get("split.count") or 1) > 1:
        raise CheckpointError(f"{header.path} is one of several parts; join them with llama-gguf-split --merge")
    check_values(header)
    _check_graph(checkpoint)
    _check_tensors(header)
    try:
        shape_of(checkpoint.native_config)
    except KernelError as error:
        raise OptionError(message("{backend}='kernels' does not fit {}: {}", header.path, error)) from error


def _check_graph(checkpoint: GgufCheckpoint) -> None:
    name = checkpoint.header.architecture
    graph = ARCHITECTURES.get(name)
    classes = f"{graph.computes}ForCausalLM" if graph else "graph that no class is known to compute"
    if classes not in DECODED or not decoded(checkpoint.native):
        raise OptionError(
            message(
                "{backend}='kernels' computes {}, but {} is {!r}, a {}; leave {backend} out",
                ", ".join(DECODED),
                checkpoint.folder,
                name,
                classes,
            )
        )
    if checkpoint.native.__name__ != classes:
        raise CheckpointError(
            f"{checkpoint.folder} is damaged: its architecture is {name!r}, a {classes}, and family "
            f"{checkpoint.layout.name!r} a {checkpoint.native.__name__}; convert the checkpoint again"
        )


def _check_tensors(header: Header) -> None:
    graph = ARCHITECTURES[header.architecture]
    for name, info in header.tensors.items():
        if info.type not in TYPES or len(info.shape) > 2:
            raise OptionError(
                message(
                    "{backend}='kernels' takes {}, but tensor {!r} of {} is {}; leave {backend} out, or write another "
                    "file: `llm dllm gguf CHECKPOINT FILE --quant Q4_0`",
                    _listed(kind.name for kind in TYPES),
                    name,
                    header.path,
                    info.type.name if info.type not in TYPES else f"of shape {list(info.shape)}",
                )
            )
        if native_name(name, graph) is None and name != FACTORS:
            raise OptionError(
                message(
                    "{backend}='kernels' has no place for tensor {!r} of {}; leave {backend} out", name, header.path
                )
            )


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"


def denoiser_of(checkpoint: GgufCheckpoint, spec: ModelSpec, options: LoadOptions) -> Denoiser:
    """A file on the best block decoder, which multiplies its blocks if it is compiled.

    :param options: `dtype` is what is computed in, `weights` one of :data:`~dllm_plugins.families.quantised.STORED`.
    :raises OptionError: for a file that the decoder does not compute, and weights that it cannot have.
    :raises CheckpointError: for tensors that contradict the config or are not finite.
    """
    check_decoded(checkpoint)
    int8 = wants_int8(options, DEVICE, STORED)
    dtype = choose_dtype(options.dtype, DEVICE)
    shape = shape_of(checkpoint.native_config)
    if int8:
        check_int8(DEVICE, dtype, shape)
    if options.weights in IN_BLOCKS:
        _check_blocks(checkpoint, options, choose(KERNEL, DEVICE, dtype, shape.sizes()).name)
    weights = in_form(stored_weights(checkpoint, dtype), options.weights)
    # Nobody else has them: what a decoder copies may go.
    return DecoderDenoiser(best_decoder(lambda: weights, spec, int8=int8, give=lambda: None), spec, int8)


def _check_blocks(checkpoint: GgufCheckpoint, options: LoadOptions, decoder: str) -> None:
    """Refuse blocks where there are none, or none that are multiplied as is asked for, or only slowly.

    :param decoder: the best one here.
    :raises OptionError: then.
    """
    kinds = CODED if options.weights == "blocks_int8" else tuple(Kind)
    if not any(BLOCKS.get(info.type) in kinds for info in checkpoint.header.tensors.values()):
        raise OptionError(
            message(
                "{weights}={!r} multiplies blocks of {}, and {} holds none; leave it out",
                options.weights,
                _listed(kind.name for kind in kinds),
                checkpoint.folder,
            )
        )
    if decoder != "compiled":
        raise OptionError(
            message("{weights}={!r} needs the compiled kernels; run `python -m dllm_kernels.build`", options.weights)
        )
