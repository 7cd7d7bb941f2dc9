"""Row-invariant products and attention: a result never depends on how many rows share the pass.

Matrix libraries choose another kernel, and with it another order of summation, for
another shape. So every product here has one fixed shape: linear layers run on tiles of
ROWS rows, attention on tiles of QUERIES queries and chunks of CHUNK keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Keys are padded to whole chunks; attention sums chunk by chunk.
CHUNK = 128
#: Rows of one linear product. Timings of 1 and of 32 rows hardly differ in bfloat16.
ROWS = 32
#: Queries of one attention tile.
QUERIES = 16
#: Tiles worked on at once, which bounds the memory of a long prefill.
TILES = 16


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """X [N, in] times weight [out, in]; N is a multiple of ROWS."""
    if len(x) == ROWS:
        return F.linear(x, weight, bias)
    return torch.cat([F.linear(tile, weight, bias) for tile in x.split(ROWS)])


def product(x: Tensor, weight: Tensor) -> Tensor:
    """X [N, in] times weight [out, in], for any N: [N, out]."""
    return linear(pad_rows(x, ROWS), weight)[: len(x)]


def pad_rows(x: Tensor, multiple: int) -> Tensor:
    """Append rows of zeros up to a multiple."""
    missing = -len(x) % multiple
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing)) if missing else x


def attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Masked attention of one request's rows over its own keys, in float32.

    :param q: float32 [n, heads, head_dim].
    :param keys: float32 [kv_heads, K, head_dim], K a multiple of CHUNK; `values` likewise.
    :param mask: bool [n, K], true where a row sees a key; every row sees at least one.
    :returns: float32 [n, heads * head_dim].
    """
    rows = len(q)
    q, mask = pad_rows(q, QUERIES), pad_rows(mask, QUERIES)
    mask[rows:, 0] = True
    parts = [
        _attend_tiles(q[start : start + QUERIES * TILES], keys, values, mask[start : start + QUERIES * TILES])
        for start in range(0, len(q), QUERIES * TILES)
    ]
    return torch.cat(parts)[:rows]


def _attend_tiles(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    count, heads, size = q.shape
    kv_heads, length, _ = keys.shape
    share, tiles, chunks = heads // kv_heads, count // QUERIES, length // CHUNK
    folded = q.view(tiles, QUERIES, kv_heads, share, size).permute(2, 0, 3, 1, 4)
    folded = folded.reshape(kv_heads, tiles, 1, share * QUERIES, size) * size**-0.5
    chunked = keys.view(kv_heads, 1, chunks, CHUNK, size)
    scores = torch.matmul(folded, chunked.transpose(-1, -2))
    hidden = ~mask.view(tiles, 1, QUERIES, chunks, CHUNK).permute(0, 3, 1, 2, 4)
    scores = scores.view(kv_heads, tiles, chunks, share, QUERIES, CHUNK).masked_fill_(hidden, -torch.inf)
    weights = scores.permute(0, 1, 3, 4, 2, 5).reshape(kv_heads, tiles, share * QUERIES, length).softmax(-1)
    weights = weights.view(kv_heads, tiles, share * QUERIES, chunks, CHUNK).transpose(2, 3)
    parts = torch.matmul(weights, values.view(kv_heads, 1, chunks, CHUNK, size))
    total = parts[:, :, 0]
    for chunk in range(1, chunks):
        total = total + parts[:, :, chunk]
    total = total.view(kv_heads, tiles, share, QUERIES, size).permute(1, 3, 0, 2, 4)
    return total.reshape(count, heads * size)
