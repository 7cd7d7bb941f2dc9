"""The load option `weights`: its values, who may ask for int8, and where it runs."""

from collections.abc import Sequence

import torch

from dllm_kernels import int8
from dllm_kernels.decoder import INT8_KERNEL
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import explain
from dllm_plugins.errors import OptionError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.messages import message

#: As the checkpoint has them in the chosen dtype, or quantised while they are loaded.
WEIGHTS = ("auto", "int8")
#: The same of GGUF files: blocks are multiplied as they lie there, which gives the bits of the dequantised weights, or
#: with activations in int8; "auto" is the first of them where there are blocks.
STORED = ("auto", "blocks", "blocks_int8", "dequantised", "int8")
#: Those that need blocks, and the compiled kernels.
IN_BLOCKS = ("blocks", "blocks_int8")


def wants_int8(options: LoadOptions, device: torch.device, known: Sequence[str] = WEIGHTS) -> bool:
    """Whether int8 weights are asked for, before any are read.

    :param known: what else may be asked for.
    :raises OptionError: for an unknown value, and for options that exclude int8.
    """
    if options.weights not in known:
        raise OptionError(message("{weights}={!r} is unknown; use {}", options.weights, " or ".join(map(repr, known))))
    if options.weights != "int8":
        return False
    if options.backend not in ("auto", "kernels"):
        raise OptionError(
            message("{weights}='int8' runs on the block decoder only; leave {backend}={!r} out", options.backend)
        )
    if options.device_map is not None:
        raise OptionError(
            message("{weights}='int8' runs on one device; leave {device_map}={!r} out", options.device_map)
        )
    if device.type != "cpu":
        raise OptionError(
            message("{weights}='int8' runs on the CPU only, not on {}; give {device}='cpu', or leave it out", device)
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


def in_form(weights: AnyWeights, asked: str) -> AnyWeights:
    """A GGUF file's weights as the option asks for them, one of :data:`STORED`."""
    if asked == "dequantised":
        return weights.plain()
    return weights.with_coded() if asked == "blocks_int8" else weights
