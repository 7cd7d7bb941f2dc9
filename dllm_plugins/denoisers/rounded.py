"""A checkpoint's matrices rounded into GGUF's blocks of 32 numbers while it is loaded.

They are the blocks that the `gguf` package makes of the same numbers, and are multiplied as those of a GGUF file:
the result has the bits of the model whose weights were rounded and dequantised to bfloat16.
"""

from dataclasses import replace
from typing import Any
from typing import cast

import torch
from torch import Tensor

from dllm_kernels.blocks import IN_BLOCK
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.blocks import Weight
from dllm_kernels.compiled.library import trim
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder.weights import MATRICES
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.extras import need
from dllm_plugins.messages import message

#: What embedding and head are rounded to: they suffer most from few bits, as llama.cpp's own choice has it.
ENDS = Kind.Q8_0
#: Scales of blocks are float16.
_MOST = int(torch.finfo(torch.float16).max)


def check_blocks(kind: Kind, shape: DecoderShape, decoder: str) -> None:
    """Refuse what cannot be rounded, or would be multiplied dequantised, before a weight is read.

    :param decoder: the best one here.
    :raises OptionError: naming the width of rows that hold no whole blocks, or what would have to be compiled.
    :raises MissingExtraError: without the `gguf` package.
    """
    need("gguf", message("{weights}={!r}", kind.name))
    for width in (shape.hidden, shape.heads * shape.head_dim, shape.intermediate):
        if width % IN_BLOCK:
            raise OptionError(
                message(
                    "{weights}={!r} rounds blocks of {} numbers, and rows of this model hold {}; leave it out",
                    kind.name,
                    IN_BLOCK,
                    width,
                )
            )
    if decoder != "compiled":
        raise OptionError(
            message("{weights}={!r} needs the compiled kernels; run `python -m dllm_kernels.build`", kind.name)
        )


def in_blocks(weights: DecoderWeights, kind: Kind, *, empty: bool = False) -> AnyWeights:
    """The same with every matrix in blocks: linear layers of the kind, embedding and head of :data:`ENDS`.

    :param weights: whose rows hold whole blocks.
    :param empty: let go of each matrix once it is rounded; whoever shares its memory keeps it.
    :raises CheckpointError: for numbers that no block holds.
    """
    layers = tuple(
        replace(cast(Any, layer), **{name: _blocks(getattr(layer, name), kind, empty=empty) for name in MATRICES})
        for layer in weights.layers
    )
    tied = weights.tied
    embedding = _blocks(weights.embedding, ENDS, empty=empty)
    head = embedding if tied else _blocks(weights.head, ENDS, empty=empty)
    if empty:
        trim()
    return cast(AnyWeights, replace(cast(Any, weights), layers=layers, embedding=embedding, head=head))


def _blocks(matrix: Tensor, kind: Kind, *, empty: bool) -> Weight:
    # Imported where it is asked for: it is an extra.
    gguf = need("gguf", message("{weights}={!r}", kind.name))
    numbers = matrix.detach().to(torch.float32).contiguous()
    if not bool((numbers.abs() <= _MOST).all()):
        raise CheckpointError(
            message(
                "{weights}={!r}: a matrix holds numbers that are not finite, or above {}; leave it out, or download "
                "the checkpoint again",
                kind.name,
                _MOST,
            )
        )
    found = gguf.quants.quantize(numbers.numpy(), gguf.GGMLQuantizationType(int(kind)))
    if empty:
        matrix.data = matrix.new_empty(0)
    return Blocks(kind, torch.from_numpy(found).view(len(numbers), -1), matrix.dtype)
