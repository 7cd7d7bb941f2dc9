"""Block attention: the queries of a block over [frozen prefix | own block], many rows at once.

The prefix lies in pages of a pool, or in a static store of the row's own
(:func:`static_prefix`); every query of a block sees all of it. Inside the block a
bool mask says who sees whom, which covers bidirectional blocks, causal rows, and drafts
beside them. Grouped keys.

Two implementations of one function: `reference` is plain torch, a row at a time; `triton`
is for GPUs and row-invariant.
"""

from typing import Any

import torch
from torch import Tensor

from dllm_kernels.attention.launch import refuses as _triton_refuses
from dllm_kernels.attention.task import Prefix
from dllm_kernels.attention.task import RowBlocks
from dllm_kernels.attention.task import static_prefix
from dllm_kernels.dispatch import Implementation
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import Shapes
from dllm_kernels.dispatch import implementations
from dllm_kernels.dispatch import kernel
from dllm_kernels.dispatch import register

__all__ = ["KERNEL", "Prefix", "RowBlocks", "block_attention", "load", "static_prefix"]

#: Its name in the dispatch; what that gives is called like :func:`block_attention`.
#: Shapes: heads, kv_heads, head_dim, and the slots of a page.
KERNEL = "block_attention"


def block_attention(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, blocks: RowBlocks) -> Tensor:
    """Softmax attention with scale head_dim ** -0.5, summed in float32, by the best implementation that can run.

    The block's own keys are read from `k` and `v`; whether they are in the store as well does not matter.

    :param q: [N, heads, head_dim], in the keys' dtype.
    :param k: [N, kv_heads, head_dim], keys of the same positions; values `v` likewise.
    :returns: [N, heads * head_dim] in that dtype; zeros where a position sees nothing or is in no block.
    :raises KernelError: for tensors that do not fit together.
    """
    shapes = {"heads": q.shape[1], "kv_heads": k.shape[1], "head_dim": q.shape[2], "page": prefix.page}
    found: Tensor = kernel(KERNEL, q.device, q.dtype, shapes)(q, k, v, prefix, blocks)
    return found


def load(name: str, device: torch.device, dtype: torch.dtype, shapes: Shapes) -> Any:
    """A certain implementation, called like :func:`block_attention`.

    :raises KernelError: if it is unknown or cannot run.
    """
    known = {item.name: item for item in implementations(KERNEL)}
    if name not in known:
        raise KernelError(f"implementation {name!r} is unknown; choose one of {sorted(known)}")
    if reason := known[name].refuses(device, dtype, shapes):
        raise KernelError(f"{KERNEL} as {name!r} {reason}; leave the implementation out")
    return known[name].load()


def _load_reference() -> Any:
    from dllm_kernels.attention.reference import attend

    return attend


def _load_triton() -> Any:
    from dllm_kernels.attention.launch import attend

    return attend


def _takes_all(_device: torch.device, _dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return None


register(Implementation(KERNEL, "reference", 0, _load_reference, _takes_all))
register(Implementation(KERNEL, "triton", 20, _load_triton, _triton_refuses))
