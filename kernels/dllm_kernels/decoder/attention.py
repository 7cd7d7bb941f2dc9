"""Row-invariant attention of a row's queries over its store: torch's fused kernel, where it keeps the promise.

Queries come in tiles of QUERIES, the heads that share a key head below one another, so
that the fused kernel always sees one number of queries; keys come in whole blocks.
Whether a query's bits then depend on its place, on the tiles beside it or on hidden keys
behind it is not assumed but measured, once per shape and number of threads; where they
do, :func:`dllm_kernels.tiles.attend` serves, which fixes the order of every sum itself.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.store import BLOCK
from dllm_kernels.tiles import QUERIES
from dllm_kernels.tiles import TILES
from dllm_kernels.tiles import attend
from dllm_kernels.tiles import pad_rows

#: Queries of one call.
GROUP = QUERIES * TILES
#: Blocks of keys that the measurement tries.
TRIED = (1, 2, 5)


class Mask:
    """Who sees whom among n queries and whole blocks of K keys; made once for all layers.

    :param seen: bool [n, K]; every row sees at least one.
    """

    def __init__(self, seen: Tensor, share: int, dtype: torch.dtype) -> None:
        self.rows = len(seen)
        self._share = share
        self._dtype = dtype
        self.seen = pad_rows(seen, QUERIES)
        # A row of padding must see something, lest its weights be 0 / 0.
        self.seen[self.rows :, 0] = True
        # The mask of a long prefill is larger than its keys: then each layer makes its own.
        self._first = self._made(0) if self.rows <= GROUP else None

    def group(self, begin: int) -> Tensor:
        """[tiles, 1, share * QUERIES, K] of at most GROUP queries, zero or minus infinity."""
        return self._made(begin) if self._first is None else self._first

    def _made(self, begin: int) -> Tensor:
        seen = self.seen[begin : begin + GROUP].view(-1, 1, QUERIES, self.seen.shape[1])
        made = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
        return made.repeat(1, 1, self._share, 1)


class Attention:
    """Attends, and remembers for which shapes the fused kernel may be used."""

    def __init__(self) -> None:
        self._agrees: dict[tuple[object, ...], bool] = {}

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
        """Q [n, heads, head_dim] over keys and values [kv_heads, K, head_dim] of its dtype: [n, heads * head_dim]."""
        key = (q.shape[1:], len(keys), q.dtype, q.device, torch.get_num_threads())
        if key not in self._agrees:
            self._agrees[key] = agree(q.shape[1], len(keys), q.shape[2], q.dtype, q.device)
        if not self._agrees[key]:
            return attend(q.float(), keys.float(), values.float(), mask.seen[: mask.rows]).to(q.dtype)
        padded = pad_rows(q, QUERIES)
        groups = [
            _fused(padded[begin : begin + GROUP], keys, values, mask.group(begin))
            for begin in range(0, len(padded), GROUP)
        ]
        return (groups[0] if len(groups) == 1 else torch.cat(groups))[: len(q)]


def _fused(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    count, heads, size = q.shape
    kv_heads, tiles = len(keys), count // QUERIES
    share = heads // kv_heads
    folded = q.view(tiles, QUERIES, kv_heads, share, size).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(tiles, kv_heads, share * QUERIES, size)
    wide = (tiles, *keys.shape)
    found = F.scaled_dot_product_attention(folded, keys.expand(wide), values.expand(wide), attn_mask=mask)
    return found.view(tiles, kv_heads, share, QUERIES, size).permute(0, 3, 1, 2, 4).reshape(count, heads * size)


@torch.inference_mode()
def agree(heads: int, kv_heads: int, size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a query's bits stay the same anywhere in a tile, among other tiles and before hidden keys."""
    noise = torch.Generator().manual_seed(0)
    longest = TRIED[-1] * BLOCK
    q = torch.randn(3 * QUERIES, heads, size, generator=noise).to(device, dtype)
    keys, values = (torch.randn(kv_heads, longest, size, generator=noise).to(device, dtype) for _ in "kv")
    rotated = torch.randperm(len(q), generator=noise)
    for index, blocks in enumerate(TRIED):
        # Most keys up to somewhere in the last block; the others are hidden.
        visible = (torch.rand(len(q), longest, generator=noise) < 0.9).to(device)
        visible[:, blocks * BLOCK - 40 :] = False
        expected = None
        for end in TRIED[index:]:
            seen = visible[:, : end * BLOCK]
            own, other = keys[:, : end * BLOCK], values[:, : end * BLOCK]
            found = _alone(q, own, other, seen)
            if expected is None:
                expected = found
            if not torch.equal(found, expected) or not torch.equal(
                _alone(q[rotated], own, other, seen[rotated]), expected[rotated]
            ):
                return False
            single = torch.cat([_alone(q[i : i + 1], own, other, seen[i : i + 1]) for i in (0, 9, 47)])
            if not torch.equal(single, expected[[0, 9, 47]]):
                return False
    full = torch.arange(GROUP) % len(q)
    alone = _alone(q, keys, values, visible)
    return torch.equal(_alone(q[full], keys, values, visible[full]), alone[full])


def _alone(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    mask = Mask(seen, q.shape[1] // len(keys), q.dtype)
    return _fused(pad_rows(q, QUERIES), keys, values, mask.group(0))[: len(q)]
