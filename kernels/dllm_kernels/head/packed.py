"""The head's weight in oneDNN's own order: a second copy that is read faster, see :mod:`dllm_kernels.onednn`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_kernels import onednn
from dllm_kernels.dispatch import KernelError

#: Positions of one product, and ids: see :mod:`~dllm_kernels.head.blocked`.
ROWS = 16
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class PackedHead:
    """Blocks of BLOCK ids; `shape` is the weight's, [V, width]."""

    blocks: tuple[Tensor, ...]
    shape: tuple[int, int]

    def product(self, hidden: Tensor, first: int, bias: Tensor | None) -> Tensor:
        """Logits [ROWS, w] of the block that begins with id `first`; hidden [ROWS, width]."""
        return onednn.multiply(hidden, self.blocks[first // BLOCK], bias)


def pack_head(weight: Tensor) -> PackedHead:
    """Pack a weight [V, width], bfloat16 on the CPU; takes as much memory again.

    :raises KernelError: if this weight or this torch cannot do it.
    """
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        raise KernelError(
            f"only bfloat16 on the cpu is packed, not {weight.dtype} on {weight.device}; pass it as it is"
        )
    try:
        with torch.no_grad():
            blocks = tuple(onednn.pack(block, ROWS) for block in weight.split(BLOCK))
            onednn.multiply(weight.new_zeros(ROWS, weight.shape[1]), blocks[-1], None)
    except onednn.MISSING as error:
        raise KernelError(f"this torch cannot pack a weight ({error}); pass it as it is") from error
    return PackedHead(blocks, (weight.shape[0], weight.shape[1]))
