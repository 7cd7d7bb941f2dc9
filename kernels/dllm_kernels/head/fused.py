"""One block of the vocabulary for one tile of positions, as a Triton kernel.

Written from the equations of the blocked implementation; runs in Triton's interpreter
(TRITON_INTERPRET=1) without a GPU. Every program has a shape of its own making, so a row's
result does not depend on how many rows there are.
"""

import os
from typing import Any

import triton
import triton.language as tl

#: The interpreter multiplies the bit patterns of bfloat16 numbers, so there they are widened first (triton 3.7).
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _block_product(
    hidden: "Any",
    weight: "Any",
    place: "Any",
    column: "Any",
    is_row: "Any",
    is_id: "Any",
    width: int,
    rows: tl.constexpr,
    block: tl.constexpr,
    inner: tl.constexpr,
    interpreted: tl.constexpr,
) -> Any:
    """Logits float32 [rows, block], in steps of `inner` hidden units."""
    row_start = place.to(tl.int64) * width
    column_start = column.to(tl.int64) * width
    logits = tl.zeros((rows, block), dtype=tl.float32)
    for start in range(0, width, inner):
        unit = start + tl.arange(0, inner)
        is_unit = unit < width
        x = tl.load(hidden + row_start[:, None] + unit[None, :], mask=is_row[:, None] & is_unit[None, :], other=0.0)
        w = tl.load(weight + column_start[:, None] + unit[None, :], mask=is_id[:, None] & is_unit[None, :], other=0.0)
        if interpreted:
            x, w = x.to(tl.float32), w.to(tl.float32)
        logits = tl.dot(x, tl.trans(w), logits, input_precision="ieee")
    return logits


def _block_draw(logits: "Any", warmth: "Any", gumbel: "Any", column: "Any", vocabulary: int) -> Any:
    """Best of logit / temperature + noise (greedy: of the logits), its id and its logit; [rows] each."""
    hot = (warmth > 0)[:, None]
    wide = logits.to(tl.float64)
    score = tl.where(hot, wide / tl.where(warmth > 0, warmth, 1.0)[:, None] + gumbel, wide)
    best = tl.max(score, axis=1)
    drawn = tl.min(tl.where(score == best[:, None], column[None, :], vocabulary), axis=1)
    logit = tl.max(tl.where(column[None, :] == drawn[:, None], logits, float("-inf")), axis=1)
    return best, drawn, logit


block_product: Any = triton.jit(_block_product)
block_draw: Any = triton.jit(_block_draw)


def _block_logits(
    hidden: "Any",
    weight: "Any",
    bias: "Any",
    banned: "Any",
    forced: "Any",
    place: "Any",
    column: "Any",
    count: int,
    vocabulary: int,
    width: int,
    has_bias: tl.constexpr,
    has_banned: tl.constexpr,
    has_forced: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
    inner: tl.constexpr,
    interpreted: tl.constexpr,
) -> Any:
    """Logits float32 [rows, block], rounded to the head's dtype; minus infinity where an id may not be drawn."""
    is_row = place < count
    is_id = column < vocabulary
    logits = block_product(hidden, weight, place, column, is_row, is_id, width, rows, block, inner, interpreted)
    if has_bias:
        logits += tl.load(bias + column, mask=is_id, other=0.0).to(tl.float32)[None, :]
    # The head's own dtype rounds: logits that are equal there must be equal here.
    if weight.dtype.element_ty == tl.bfloat16:
        # To nearest, ties to even, by hand: the interpreter's cast cuts off.
        bits = logits.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        logits = bits.to(tl.float32, bitcast=True)
    else:
        logits = logits.to(weight.dtype.element_ty).to(tl.float32)
    seen = is_id[None, :] & (place[:, None] >= 0)
    if has_banned:
        seen = seen & (tl.load(banned + column, mask=is_id, other=1) == 0)[None, :]
    if has_forced:
        only = tl.load(forced + place, mask=is_row, other=-1)
        seen = seen & ((only[:, None] < 0) | (only[:, None] == column[None, :]))
    return tl.where(seen, logits, float("-inf"))


block_logits: Any = triton.jit(_block_logits)


def _head_picked(
    hidden: "Any",
    weight: "Any",
    bias: "Any",
    banned: "Any",
    forced: "Any",
    chosen: "Any",
    picked: "Any",
    count: int,
    vocabulary: int,
    width: int,
    has_bias: tl.constexpr,
    has_banned: tl.constexpr,
    has_forced: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
    inner: tl.constexpr,
    interpreted: tl.constexpr,
) -> None:
    """Per row, the logits of its block `chosen`: those of its whole tile, of which the row's own are kept."""
    place = tl.program_id(0) * rows + tl.arange(0, rows)
    own = tl.program_id(0) * rows + tl.program_id(1)
    if own < count:
        column = tl.load(chosen + own) * block + tl.arange(0, block)
        logits = block_logits(
            hidden,
            weight,
            bias,
            banned,
            forced,
            place,
            column,
            count,
            vocabulary,
            width,
            has_bias,
            has_banned,
            has_forced,
            rows,
            block,
            inner,
            interpreted,
        )
        at = place.to(tl.int64)[:, None] * block + tl.arange(0, block)[None, :]
        tl.store(picked + at, logits, mask=(place == own)[:, None] & (column >= 0)[None, :])


def _head_blocks(
    hidden: "Any",
    weight: "Any",
    bias: "Any",
    banned: "Any",
    forced: "Any",
    temperature: "Any",
    noise: "Any",
    numbers: "Any",
    scores: "Any",
    heat: "Any",
    ids: "Any",
    count: int,
    vocabulary: int,
    width: int,
    blocks: int,
    plane: int,
    first_block: int,
    noise_width: int,
    has_bias: tl.constexpr,
    has_banned: tl.constexpr,
    has_forced: tl.constexpr,
    has_noise: tl.constexpr,
    has_heat: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
    inner: tl.constexpr,
    interpreted: tl.constexpr,
) -> None:
    """Per row and block: largest, mass, moment, second, drawn logit; drawn score; mass at its temperature;
    id of the largest, id drawn.
    """
    place = tl.program_id(0) * rows + tl.arange(0, rows)
    number = first_block + tl.program_id(1)
    column = number * block + tl.arange(0, block)
    is_row = place < count
    is_id = column < vocabulary
    logits = block_logits(
        hidden,
        weight,
        bias,
        banned,
        forced,
        place,
        column,
        count,
        vocabulary,
        width,
        has_bias,
        has_banned,
        has_forced,
        rows,
        block,
        inner,
        interpreted,
    )

    largest = tl.max(logits, axis=1)
    # Ids, not positions in the block: the lowest of equal ones.
    leader = tl.min(tl.where(logits == largest[:, None], column[None, :], vocabulary), axis=1)
    second = tl.max(tl.where(column[None, :] == leader[:, None], float("-inf"), logits), axis=1)
    anchor = tl.where(largest == float("-inf"), 0.0, largest)
    # As in the blocked implementation: minus infinity could not be multiplied with its weight of 0.
    shifted = tl.maximum(logits - anchor[:, None], -87.0)
    weights = tl.exp(shifted)
    mass = tl.sum(weights, axis=1)
    moment = tl.sum(weights * shifted, axis=1)

    slot = place.to(tl.int64) * blocks + number
    tl.store(numbers + slot, largest, mask=is_row)
    tl.store(numbers + plane + slot, mass, mask=is_row)
    tl.store(numbers + 2 * plane + slot, moment, mask=is_row)
    tl.store(numbers + 3 * plane + slot, second, mask=is_row)
    tl.store(ids + slot, leader, mask=is_row)
    if has_heat:
        warm = tl.load(temperature + place, mask=is_row, other=1.0)
        # Wide before the difference, whose rounding would move borders between ids.
        below = (logits.to(tl.float64) - anchor[:, None].to(tl.float64)) / tl.where(warm > 0, warm, 1.0)[:, None]
        tl.store(heat + slot, tl.sum(tl.exp(below), axis=1), mask=is_row)
    if has_noise:
        warmth = tl.load(temperature + place, mask=is_row, other=0.0)
        behind = column - first_block * block
        at = place.to(tl.int64)[:, None] * noise_width + behind[None, :]
        gumbel = tl.load(noise + at, mask=is_row[:, None] & is_id[None, :], other=0.0)
        best, drawn, logit = block_draw(logits, warmth, gumbel, column, vocabulary)
        tl.store(scores + slot, best, mask=is_row)
        tl.store(numbers + 4 * plane + slot, logit, mask=is_row)
        tl.store(ids + plane + slot, drawn, mask=is_row)


head_blocks: Any = triton.jit(_head_blocks)
head_picked: Any = triton.jit(_head_picked)
