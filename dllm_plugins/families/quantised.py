"""The load option `weights`: its values, who may ask for fewer bits, and where they run."""

from collections.abc import Sequence

import torch

from dllm_kernels import int8
from dllm_kernels.blocks import Kind
from dllm_kernels.decoder import INT8_KERNEL
from dllm_kernels.decoder import KERNEL
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import explain
from dllm_plugins.denoisers.rounded import check_blocks
from dllm_plugins.errors import OptionError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message

#: Blocks that a checkpoint's matrices are rounded into while they are loaded.
ROUNDED = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
#: As a checkpoint has them in the chosen dtype, or quantised while they are loaded.
QUANTISED = ("int8", *ROUNDED)
WEIGHTS = ("auto", *QUANTISED)
#: Of the default model without its denoiser: blocks are what its file has.
PLAIN = ("auto", "int8")
#: The same of GGUF files: blocks are multiplied as they lie there, which gives the bits of the dequantised weights, or
#: with activations in int8; "auto" is the first of them where there are blocks.
STORED = ("auto", "blocks", "blocks_int8", "dequantised", "int8")
#: Those that need blocks, and the compiled kernels.
IN_BLOCKS = ("blocks", "blocks_int8")


def wants_int8(options: LoadOptions, device: torch.device, known: Sequence[str]) -> bool:
    """Whether int8 weights are asked for; see :func:`wants_quantised`, which says what is raised."""
    return wants_quantised(options, device, known) and options.weights == "int8"


def wants_quantised(options: LoadOptions, device: torch.device, known: Sequence[str] = WEIGHTS) -> bool:
    """Whether weights of fewer bits than the file's are asked for, before any are read.

    :param known: what else may be asked for.
    :raises OptionError: for an unknown value, and for options that exclude such weights.
    """
    asked = options.weights
    if asked not in known:
        raise OptionError(message("{weights}={!r} is unknown; use {}", asked, " or ".join(map(repr, known))))
    if asked not in QUANTISED:
        return False
    if options.backend not in ("auto", "kernels"):
        raise OptionError(
            message("{weights}={!r} runs on the block decoder only; leave {backend}={!r} out", asked, options.backend)
        )
    if options.device_map is not None:
        raise OptionError(
            message("{weights}={!r} runs on one device; leave {device_map}={!r} out", asked, options.device_map)
        )
    if device.type != "cpu":
        raise OptionError(
            message(
                "{weights}={!r} runs on the CPU only, not on {}; give {device}='cpu', or leave it out", asked, device
            )
        )
    return True


def check_int8(device: torch.device, dtype: torch.dtype, shape: DecoderShape) -> None:
    """Refuse int8 where only the slow reference would compute it.

    :raises OptionError: with why each implementation cannot.
    """
    found = choose(INT8_KERNEL, device, dtype, shape.sizes())
    sizes = {"in": shape.hidden, "out": shape.hidden}
    plain = found.name == "reference" and choose(int8.KERNEL, device, dtype, sizes).name == "reference"
    if found.load().promises(device, dtype, shape.sizes()) and not plain:
        return
    reasons = (
        explain(int8.KERNEL, device, dtype, sizes) if plain else explain(INT8_KERNEL, device, dtype, shape.sizes())
    )
    raise OptionError(message("{weights}='int8' would be slow here; leave it out ({})", reasons))


def check_quantised(asked: str, device: torch.device, dtype: torch.dtype, shape: DecoderShape) -> None:
    """Refuse weights of fewer bits where nothing computes them, or only slowly.

    :param asked: "int8", or one of :data:`ROUNDED`.
    :raises OptionError: with the reason.
    :raises MissingExtraError: without what rounds them.
    """
    if asked == "int8":
        check_int8(device, dtype, shape)
    else:
        check_blocks(Kind[asked], shape, choose(KERNEL, device, dtype, shape.sizes()).name)


def in_form(weights: AnyWeights, asked: str) -> AnyWeights:
    """A GGUF file's weights as the option asks for them, one of :data:`STORED`."""
    if asked == "dequantised":
        return weights.plain()
    return weights.with_coded() if asked == "blocks_int8" else weights
