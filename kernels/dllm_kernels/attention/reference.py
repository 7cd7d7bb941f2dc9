"""Block attention as plainly as it can be said: row after row, float32, one softmax."""

import torch
from torch import Tensor

from dllm_kernels.attention.task import Prefix
from dllm_kernels.attention.task import RowBlocks
from dllm_kernels.attention.task import check


def attend(q: Tensor, k: Tensor, v: Tensor, prefix: Prefix, blocks: RowBlocks) -> Tensor:
    """See :func:`~dllm_kernels.attention.block_attention`."""
    check(q, k, v, prefix, blocks)
    found = torch.zeros(q.shape, device=q.device)
    starts = blocks.starts.tolist()
    for row, length in enumerate(prefix.lengths.tolist()):
        mine = slice(starts[row], starts[row + 1])
        count = mine.stop - mine.start
        if count == 0:
            continue
        seen = torch.ones(count, length + count, dtype=torch.bool, device=q.device)
        seen[:, length:] = blocks.own[mine, :count]
        keys = torch.cat([_kept(prefix.keys, prefix, row, length), k[mine]]).float()
        values = torch.cat([_kept(prefix.values, prefix, row, length), v[mine]]).float()
        found[mine] = _softmax(q[mine].float(), keys, values, seen)
    return found.to(q.dtype).flatten(1)


def _kept(stored: Tensor, prefix: Prefix, row: int, length: int) -> Tensor:
    """The keys or values of a row's prefix, [length, kv_heads, head_dim]."""
    pages = prefix.table[row, : -(-length // prefix.page)].long()
    return stored[pages].flatten(0, 1)[:length]


def _softmax(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """[n, heads, head_dim] from q likewise, keys and values [K, kv_heads, head_dim] and seen [n, K]."""
    share = q.shape[1] // keys.shape[1]
    keys, values = (stored.repeat_interleave(share, dim=1).transpose(0, 1) for stored in (keys, values))
    scores = q.transpose(0, 1) @ keys.transpose(1, 2) * q.shape[2] ** -0.5
    weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
    # Without a key to see, the weights are 0 / 0.
    weights = weights.masked_fill(~seen.any(1, keepdim=True), 0.0)
    found: Tensor = (weights @ values).transpose(0, 1)
    return found
