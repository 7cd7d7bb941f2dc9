"""The unmasking head: from hidden states straight to tokens and how sure the model is of them.

A denoiser's last product gives [N, V] logits, of which a step needs one token, its
probability, the entropy and the margin per position. Here the vocabulary is passed
block by block with an online softmax (arXiv 1805.02867), so the logits never exist at once.

Three implementations of one function: `reference` builds [N, V] in plain torch, `cpu`
works in blocks of one fixed shape, is row-invariant and runs wherever torch does, `triton`
is for GPUs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dllm_kernels.dispatch import Implementation
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import choose
from dllm_kernels.dispatch import implementations
from dllm_kernels.dispatch import register
from dllm_kernels.head.blocked import blocked
from dllm_kernels.head.launch import fused
from dllm_kernels.head.launch import refuses as triton_refuses
from dllm_kernels.head.packed import PackedHead
from dllm_kernels.head.packed import pack_head
from dllm_kernels.head.reference import reference
from dllm_kernels.head.task import NARROW
from dllm_kernels.head.task import NoiseOf
from dllm_kernels.head.task import Shapes
from dllm_kernels.head.task import Task
from dllm_kernels.head.task import Unmasked
from dllm_kernels.head.task import prepare

__all__ = ["KERNEL", "NoiseOf", "PackedHead", "Unmasked", "pack_head", "unmask"]

#: Its name in the dispatch. What that gives is :func:`unmask` with the implementation filled in.
#: Shapes: positions, vocabulary, width; top_k, cut, logits, pairs and packed above 0 where asked for.
KERNEL = "unmasking_head"

_RUN: dict[str, Callable[[Task], Unmasked]] = {"reference": reference, "cpu": blocked, "triton": fused}


def unmask(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    banned: Tensor | None = None,
    forced: Tensor | None = None,
    temperature: Tensor | float = 0.0,
    noise: NoiseOf | Tensor | None = None,
    uniform: Tensor | None = None,
    cut: Tensor | int = 0,
    top_k: int = 0,
    logits: bool = False,
    packed: PackedHead | None = None,
    implementation: str | None = None,
) -> Unmasked:
    """Tokens for N wanted positions from their final hidden states.

    Logits are those of `torch.nn.functional.linear`, rounded to the weight's dtype. Greedy
    positions take the first largest one; sampled ones the first largest of
    logit / temperature + noise in float64 (Gumbel-max, arXiv 1611.01144), or the first id whose
    cumulative probability reaches a uniform number. Where every logit is minus infinity the token
    is 0 and the rest is NaN.

    :param hidden: [N, width], in the weight's dtype.
    :param weight: [V, width].
    :param bias: [V].
    :param banned: int64 [S], ids whose logits become minus infinity, or [P, 2], pairs
        (position, id) for single positions.
    :param forced: int64 [N], the only id left at a position, -1 where free.
    :param temperature: of all positions, or [N]; 0 is greedy.
    :param noise: float64 standard Gumbel numbers [N, V], or what yields a part of one
        position's. Only sampled positions without a uniform number ask, once per block.
    :param uniform: float64 [N] in (0, 1), NaN at greedy positions and where noise decides.
    :param cut: draw from this many largest logits only (and those equal to the last), of all
        positions or [N]; 0 from all. Probability, entropy and margin know no cut.
    :param top_k: how many of the largest logits to return.
    :param logits: return all of them, [N, V].
    :param packed: this weight by :func:`pack_head`, for the `cpu` implementation.
    :param implementation: `reference`, `cpu` or `triton`; None for the best.
    :raises ValueError: if arguments contradict one another or the implementation cannot serve them.
    """
    task = prepare(hidden, weight, bias, banned, forced, temperature, noise, uniform, cut, top_k, logits, packed)
    device, dtype, shapes = weight.device, weight.dtype, task.shapes()
    if implementation is None:
        implementation = choose(KERNEL, device, dtype, shapes).name
    found = {item.name: item for item in implementations(KERNEL)}.get(implementation)
    if found is None or implementation not in _RUN:
        raise KernelError(f"implementation {implementation!r} is unknown; choose one of {sorted(_RUN)}")
    if reason := found.refuses(device, dtype, shapes):
        raise KernelError(f"{KERNEL} as {implementation!r} {reason}; leave the implementation out")
    with torch.no_grad():
        return _RUN[implementation](task)


def _reference_refuses(_device: torch.device, _dtype: torch.dtype, shapes: Shapes) -> str | None:
    return "does not use packed weights" if shapes.get("packed") else None


def _cpu_refuses(_device: torch.device, dtype: torch.dtype, _shapes: Shapes) -> str | None:
    return None if dtype in NARROW else f"sums in float32, so it does not take {dtype}"


for _name, _rank, _refuses in (
    ("reference", 0, _reference_refuses),
    ("cpu", 10, _cpu_refuses),
    ("triton", 20, triton_refuses),
):
    register(Implementation(KERNEL, _name, _rank, partial(partial, unmask, implementation=_name), _refuses))
