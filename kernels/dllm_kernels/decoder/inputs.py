"""A pass as tensors on the device, of few different shapes.

Numbers of positions, parts, pages and keys of a block are rounded up, so that few
recordings of a pass serve many passes; everything else is in the tensors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.attention.pages import PagedRow
from dllm_kernels.attention.pages import PagePool
from dllm_kernels.decoder.base import Part
from dllm_kernels.dispatch import KernelError
from dllm_kernels.tiles import ROWS

#: Longest blocks are rounded up to a multiple of this.
STEP = 16


class Inputs(NamedTuple):
    """A pass, on the device. N is whole tiles of ROWS; what is behind the last part is padding.

    :param tokens: int64 [N].
    :param positions: int64 [N], rotary.
    :param slots: int64 [N], where in the pool a position's key goes.
    :param noisy: bool [N, 1], where low-rank pairs act; [0, 1] if they act nowhere.
    :param starts: int32 [R + 1], where parts begin; empty ones at the end.
    :param lengths: int32 [R], positions kept before each part.
    :param table: int32 [R, pages], of each part's row.
    :param own: bool [N, widest], who sees whom in a part.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    noisy: Tensor
    starts: Tensor
    lengths: Tensor
    table: Tensor
    own: Tensor


def inputs_of(pool: PagePool, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None) -> Inputs:
    """See :meth:`~dllm_kernels.decoder.base.Decoder.forward`; `noisy` are indices int64 on the pool's device.

    :raises KernelError: for a store that is not the pool's.
    """
    device, count, missing = pool.data.device, len(tokens), -len(tokens) % ROWS
    rows = [_row(part, pool) for part in parts]
    widest = max((len(part.seen) for part in parts), default=1)
    pages = max((len(row.pages) for row in rows), default=1)
    # Where nothing is wanted is page 0.
    slots = torch.zeros(count + missing, dtype=torch.int64)
    own = torch.zeros(count + missing, -(-widest // STEP) * STEP, dtype=torch.bool)
    table = torch.zeros(_doubled(len(parts)), _doubled(pages), dtype=torch.int32)
    starts = torch.full((len(table) + 1,), count, dtype=torch.int32)
    lengths = torch.zeros(len(table), dtype=torch.int32)
    written: set[int] = set()
    for index, (part, row) in enumerate(zip(parts, rows, strict=True)):
        own[part.rows, : len(part.seen)] = part.seen.cpu()
        table[index, : len(row.pages)] = torch.tensor(row.pages, dtype=torch.int32)
        starts[index], lengths[index] = part.rows.start, row.kept
        # Keys of a row's first part stay.
        if id(row) not in written:
            slots[part.rows] = row.slots(torch.arange(row.kept, row.kept + len(part.seen)))
            written.add(id(row))
    gate = torch.zeros(0 if noisy is None else count + missing, 1, dtype=torch.bool, device=device)
    if noisy is not None:
        gate[noisy] = True
    return Inputs(
        tokens=F.pad(tokens.to(device), (0, missing)),
        positions=F.pad(positions.to(device), (0, missing)),
        slots=slots.to(device),
        noisy=gate,
        starts=starts.to(device),
        lengths=lengths.to(device),
        table=table.to(device),
        own=own.to(device),
    )


def _row(part: Part, pool: PagePool) -> PagedRow:
    if not isinstance(part.store, PagedRow) or part.store.pool is not pool:
        name = type(part.store).__name__
        raise KernelError(f"a store of {name} is another decoder's; use this one's new_store()")
    return part.store


def _doubled(count: int) -> int:
    """The next power of two."""
    return 1 << max(count - 1, 0).bit_length()
