"""The Triton implementation from outside: what it can serve, and its launch."""

import os
from importlib.util import find_spec

import torch
from torch import Tensor

from dllm_kernels.attention.task import NARROW
from dllm_kernels.attention.task import Prefix
from dllm_kernels.attention.task import RowBlocks
from dllm_kernels.attention.task import check
from dllm_kernels.dispatch import Shapes

#: Queries times heads of their group in one tile; the same for any block, so that sums are the same too.
QUERIES = 32
#: Keys of one tile.
TILE = 32


def stages(width: int) -> int:
    """Tiles in flight, for heads `width` bytes wide: as many as fit in a GPU's shared memory of 99 KiB."""
    return 3 if width <= 256 else 1


def refuses(device: torch.device, dtype: torch.dtype, shapes: Shapes) -> str | None:
    """Why it cannot run, or None."""
    size, page = shapes["head_dim"], shapes["page"]
    if find_spec("triton") is None:
        return "needs Triton (pip install triton)"
    if device.type != "cuda" and not (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
        return f"runs on a GPU, or with TRITON_INTERPRET=1 slowly on the CPU, not on {device.type}"
    if dtype not in NARROW:
        return f"sums in float32, so it does not take {dtype}"
    if size < 16 or size & (size - 1):
        return f"takes heads whose width is a power of two from 16 on, not head_dim={size}"
    return f"takes pages of whole tiles of {TILE} keys, not page={page}" if page % TILE else None


def attend(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, blocks: RowBlocks) -> Tensor:
    """See :func:`~dllm_kernels.attention.block_attention`; serves what :func:`refuses` lets through."""
    from dllm_kernels.attention.fused import INTERPRETED
    from dllm_kernels.attention.fused import attend_blocks

    check(q, k, v, prefix, blocks)
    count, heads, size = q.shape
    kv_heads, widest = k.shape[1], blocks.own.shape[1]
    share, rows = heads // kv_heads, len(prefix.lengths)
    # Float32: the interpreter's cast to bfloat16 cuts off. Zeros: positions of no block are not written.
    out = torch.zeros(count, heads, size, device=q.device)
    if out.numel() and rows and widest:
        # Triton launches on the current device, whatever its tensors' is.
        with torch.cuda.device_of(q):
            attend_blocks[(rows, kv_heads, -(-widest * share // QUERIES))](
                q.contiguous(),
                k.contiguous(),
                v.contiguous(),
                prefix.keys,
                prefix.values,
                prefix.table.contiguous(),
                prefix.lengths,
                blocks.starts,
                blocks.own.contiguous().view(torch.uint8),
                out,
                size**-0.5,
                prefix.table.shape[1],
                widest,
                prefix.page,
                *prefix.keys.stride()[:3],
                share=share,
                size=size,
                queries=QUERIES,
                tile=TILE,
                interpreted=INTERPRETED,
                num_stages=stages(size * q.element_size()),
            )
    return out.to(q.dtype).flatten(1)
