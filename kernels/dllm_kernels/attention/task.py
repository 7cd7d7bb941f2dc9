"""What block attention is asked: blocks of queries, each behind its row's prefix."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_kernels.dispatch import KernelError

#: Dtypes whose products are summed in float32.
NARROW = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Prefix:
    """Keys and values of R rows, in pages; key s of a row is slot `s % page` of its page `s // page`.

    :param keys: [pages, page, kv_heads, head_dim] in any layout whose last axis is dense.
    :param values: likewise, of the same strides.
    :param table: int32 [R, most], the pages of each row in order; what is behind its last page is not read.
    :param lengths: int32 [R], keys of each row. On the device, so that a captured pass can be
        replayed at any length.
    """

    keys: Tensor
    values: Tensor
    table: Tensor
    lengths: Tensor

    @property
    def page(self) -> int:
        """Slots of a page."""
        return self.keys.shape[1]


@dataclass(frozen=True, slots=True)
class RowBlocks:
    """Which of N consecutive positions are the block of which of R rows, and who sees whom in it.

    :param starts: int32 [R + 1], where the block of each row begins, and the last one ends. Blocks may be empty.
    :param own: bool [N, widest], whether a position sees the j-th one of its own block;
        no block is longer than `widest`.
    """

    starts: Tensor
    own: Tensor


def static_prefix(keys: Tensor, values: Tensor, lengths: Tensor) -> Prefix:
    """Rows with room of their own: a page each.

    :param keys: [R, capacity, kv_heads, head_dim]; values likewise.
    :param lengths: int32 [R].
    """
    table = torch.arange(len(keys), dtype=torch.int32, device=keys.device)[:, None]
    return Prefix(keys, values, table, lengths)


def check(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, blocks: RowBlocks) -> None:
    """Refuse tensors that do not fit together; what they hold is read on the CPU only, lest a device be waited for.

    :raises KernelError: with the shapes that differ.
    """
    count, heads, size = q.shape
    kv_heads = k.shape[1]
    rows = len(prefix.lengths)
    wanted = {
        "k": (k.shape, (count, kv_heads, size)),
        "v": (v.shape, (count, kv_heads, size)),
        "prefix.keys": (prefix.keys.shape[2:], (kv_heads, size)),
        "prefix.values": (prefix.values.shape, prefix.keys.shape),
        "strides of prefix.values": (prefix.values.stride(), prefix.keys.stride()),
        "prefix.table": (prefix.table.shape[:1], (rows,)),
        "blocks.starts": (blocks.starts.shape, (rows + 1,)),
        "blocks.own": (blocks.own.shape[:1], (count,)),
    }
    for name, (found, expected) in wanted.items():
        if tuple(found) != tuple(expected):
            raise KernelError(f"{name} is {tuple(found)}, but {tuple(expected)} fits the other tensors")
    if heads % kv_heads:
        raise KernelError(f"{heads} query heads are no multiple of {kv_heads} key heads; repeat the keys")
    if prefix.keys.stride(3) != 1:
        raise KernelError(f"the last axis of the keys has stride {prefix.keys.stride(3)}; make it dense")
    for name, numbers in (("table", prefix.table), ("lengths", prefix.lengths), ("starts", blocks.starts)):
        if numbers.dtype != torch.int32:
            raise KernelError(f"{name} is {numbers.dtype}, and its memory is read as torch.int32; convert it")
    tensors = (q, k, v, prefix.keys, prefix.values, prefix.table, prefix.lengths, blocks.starts, blocks.own)
    places = {tensor.device for tensor in tensors}
    if len(places) != 1:
        raise KernelError(f"the tensors are on {', '.join(sorted(map(str, places)))}; move them to one device")
    if q.device.type == "cpu":
        _check_numbers(prefix, blocks, count)
    if blocks.own.dtype != torch.bool:
        raise KernelError(f"blocks.own is {blocks.own.dtype}; compare it, so that it is torch.bool")
    dtypes = {tensor.dtype for tensor in (q, k, v, prefix.keys, prefix.values)}
    if len(dtypes) != 1:
        names = ", ".join(sorted(map(str, dtypes)))
        raise KernelError(f"queries, keys and values are of {names}; convert them to one dtype")


def _check_numbers(prefix: Prefix, blocks: RowBlocks, count: int) -> None:
    """Blocks lie in the positions one behind another, and prefixes in pages that there are.

    :raises KernelError: naming what does not.
    """
    sizes = blocks.starts.diff()
    if not len(sizes):
        return
    if bool((sizes < 0).any()) or int(sizes.max()) > blocks.own.shape[1] or int(blocks.starts[0]) < 0:
        raise KernelError(f"blocks of {sizes.tolist()} positions are none of at most {blocks.own.shape[1]}")
    if int(blocks.starts[-1]) > count:
        raise KernelError(f"the last block ends at {int(blocks.starts[-1])}, and there are {count} positions")
    pages = -(-prefix.lengths // prefix.page)
    if int(prefix.lengths.min()) < 0 or int(pages.max()) > prefix.table.shape[1]:
        raise KernelError(f"prefixes of {prefix.lengths.tolist()} keys do not fit {prefix.table.shape[1]} pages")
    read = prefix.table[torch.arange(prefix.table.shape[1]) < pages[:, None]]
    if bool(((read < 0) | (read >= len(prefix.keys))).any()):
        raise KernelError(f"the table names pages outside 0 ... {len(prefix.keys) - 1}")
