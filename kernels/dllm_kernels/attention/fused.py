"""Block attention as a Triton kernel: one program per row, key head and tile of queries.

Written from the equations of the online softmax (arXiv 1805.02867). Runs in Triton's
interpreter (TRITON_INTERPRET=1) without a GPU. A key's tile and its place in it follow from
its slot alone, tiles are summed from the first to the last, and nothing is split: a query's
result is the same bits whether the keys before it are in the prefix or in its own
block, and whatever else is in the pass. A tile that is hidden from a query adds zeros.
"""

import os
from typing import Any

import triton
import triton.language as tl

#: The interpreter multiplies the bit patterns of bfloat16 numbers, so there they are widened first (triton 3.7).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _add_tile(
    q: "Any",
    keys: "Any",
    values: "Any",
    seen: "Any",
    scale: float,
    top: "Any",
    mass: "Any",
    total: "Any",
    interpreted: tl.constexpr,
) -> Any:
    """Largest score, sum of weights and weighted values [queries], [queries], [queries, size], one tile further."""
    if interpreted:
        keys, values = keys.to(tl.float32), values.to(tl.float32)
    scores = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
    scores = tl.where(seen, scores, float("-inf"))
    highest = tl.maximum(top, tl.max(scores, axis=1))
    # Nothing seen so far: the difference of two infinities is not a number.
    anchor = tl.where(highest == float("-inf"), 0.0, highest)
    fade = tl.exp(top - anchor)
    weights = tl.exp(scores - anchor[:, None])
    mass = mass * fade + tl.sum(weights, axis=1)
    total = tl.dot(weights.to(values.dtype), values, total * fade[:, None], input_precision="ieee")
    return highest, mass, total


add_tile: Any = triton.jit(_add_tile)


def _attend_blocks(
    q: "Any",
    k: "Any",
    v: "Any",
    keys: "Any",
    values: "Any",
    table: "Any",
    lengths: "Any",
    starts: "Any",
    own: "Any",
    out: "Any",
    scale: float,
    table_width: int,
    own_width: int,
    page: int,
    page_stride: int,
    slot_stride: int,
    head_stride: int,
    share: tl.constexpr,
    size: tl.constexpr,
    queries: tl.constexpr,
    tile: tl.constexpr,
    interpreted: tl.constexpr,
) -> None:
    """Program (row, key head, tile): the tile's flat index counts query by query, head by head of the group."""
    row, kv_head, kv_heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    begin = tl.load(starts + row)
    count = tl.load(starts + row + 1) - begin
    length = tl.load(lengths + row)
    if tl.program_id(2) * queries >= count * share:
        return
    flat = tl.program_id(2) * queries + tl.arange(0, queries)
    query = flat // share
    is_query = query < count
    unit = tl.arange(0, size)
    place = (begin + query).to(tl.int64)
    head = kv_head * share + flat % share
    at = (place * (kv_heads * share) + head)[:, None] * size + unit[None, :]
    x = tl.load(q + at, mask=is_query[:, None], other=0.0)
    if interpreted:
        x = x.to(tl.float32)
    top = tl.full((queries,), float("-inf"), dtype=tl.float32)
    mass = tl.zeros((queries,), dtype=tl.float32)
    total = tl.zeros((queries, size), dtype=tl.float32)
    lane = tl.arange(0, tile)
    everything = (flat >= 0)[:, None] & (lane >= 0)[None, :]
    whole = length // tile
    for index in range(0, whole):
        # Pages are whole tiles.
        number = tl.load(table + row * table_width + index * tile // page).to(tl.int64)
        slot = index * tile % page + lane
        stored = number * page_stride + slot[:, None] * slot_stride + kv_head * head_stride + unit[None, :]
        top, mass, total = add_tile(
            x, tl.load(keys + stored), tl.load(values + stored), everything, scale, top, mass, total, interpreted
        )
    for index in range(whole, tl.cdiv(length + count, tile)):
        key = index * tile + lane
        is_old = key < length
        number = tl.load(table + row * table_width + index * tile // page, mask=index * tile < length, other=0)
        slot = index * tile % page + lane
        stored = number.to(tl.int64) * page_stride + slot[:, None] * slot_stride + kv_head * head_stride + unit[None, :]
        behind = key - length
        is_own = (behind >= 0) & (behind < count)
        fresh = ((begin + behind).to(tl.int64) * kv_heads + kv_head)[:, None] * size + unit[None, :]
        tile_keys = tl.where(
            is_old[:, None],
            tl.load(keys + stored, mask=is_old[:, None], other=0.0),
            tl.load(k + fresh, mask=is_own[:, None], other=0.0),
        )
        tile_values = tl.where(
            is_old[:, None],
            tl.load(values + stored, mask=is_old[:, None], other=0.0),
            tl.load(v + fresh, mask=is_own[:, None], other=0.0),
        )
        pair = place[:, None] * own_width + behind[None, :]
        visible = tl.load(own + pair, mask=is_query[:, None] & is_own[None, :], other=0) != 0
        seen = visible | (is_old[None, :] & (flat >= 0)[:, None])
        top, mass, total = add_tile(x, tile_keys, tile_values, seen, scale, top, mass, total, interpreted)
    # Who sees nothing gets zeros.
    mixed = total / tl.where(mass == 0.0, 1.0, mass)[:, None]
    tl.store(out + at, mixed, mask=is_query[:, None])


attend_blocks: Any = triton.jit(_attend_blocks)
