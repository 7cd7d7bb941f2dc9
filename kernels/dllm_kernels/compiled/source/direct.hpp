// Products of a few rows with blocks that are multiplied as soon as they are in registers: for so few rows it does not
// pay to write a panel down and to read it again. The sums are those of a panel, in the same order.
#pragma once

#include "blocks.hpp"

// Rows of a pass up to which that is so: those of one tile.
constexpr int MOST_DIRECT = 6;
static_assert(MOST_DIRECT <= MOST_ROWS || !has_two(Q8_0));

// Whether it can be: in bfloat16, on processors that have a way to unpack two blocks at once.
template <class T>
constexpr bool is_direct(int32_t kind, int rows) {
    return T::PER_UNIT == 2 && has_two(kind) && rows <= MOST_DIRECT;
}

template <int32_t KIND, int MR>
inline __attribute__((always_inline)) void add_blocks(Floats (&sum)[MR], const uint8_t* from, int inputs,
                                                      const Unit* const (&xs)[MR]) {
    auto add = [&](Units weights, int at) {
#pragma GCC unroll 6
        for (int r = 0; r < MR; r++) sum[r] = BFloat16::dot(sum[r], weights, load<Units>(xs[r] + at / 2));
    };
    int at = 0;
    if constexpr (has_two(KIND))
        for (; at + 2 * IN_BLOCK <= inputs; at += 2 * IN_BLOCK, from += 2 * bytes_of(KIND)) {
            fetch<KIND>(from);
            const Two found = two_blocks<KIND>(from);
            add(found.first, at), add(found.second, at + IN_BLOCK);
        }
    if (at == inputs) return;
    Unit last[IN_BLOCK / 2];
    unpack_row<BFloat16, KIND>(from, IN_BLOCK, last);
    add(load<Units>(last), at);
}

// to[r * outputs_of(MR) + n] for `outputs` outputs of MR rows, whose weights are blocks; see `tile`.
template <int32_t KIND, int MR>
__attribute__((noinline)) void direct_tile(const uint8_t* blocks, int inputs, const Factors& f, int row, int out,
                                           int outputs, float* to) {
    constexpr int NR = outputs_of(MR);
    const size_t bytes = row_bytes(KIND, inputs);
    const Unit* xs[MR];
    for (int r = 0; r < MR; r++) xs[r] = f.x.row(row + r);
    Floats sum[NR * MR] = {};
    for (int n = 0; n < outputs; n++) {
        Floats own[MR] = {};
        add_blocks<KIND, MR>(own, blocks + (out + n) * bytes, inputs, xs);
        if (f.t.data) accumulate<BFloat16, MR, 1, true>(own, f.t, row, f.u, out + n);
#pragma GCC unroll 6
        for (int r = 0; r < MR; r++) sum[r * NR + n] = own[r];
    }
    sums<NR * MR>(sum, to);
}

template <int32_t KIND>
inline void direct_rows(const uint8_t* blocks, int inputs, const Factors& f, int row, int rows, int out, int outputs,
                        float* to) {
    switch (rows) {
        case 1: return direct_tile<KIND, 1>(blocks, inputs, f, row, out, outputs, to);
        case 2: return direct_tile<KIND, 2>(blocks, inputs, f, row, out, outputs, to);
        case 3: return direct_tile<KIND, 3>(blocks, inputs, f, row, out, outputs, to);
        case 4: return direct_tile<KIND, 4>(blocks, inputs, f, row, out, outputs, to);
        case 5: return direct_tile<KIND, 5>(blocks, inputs, f, row, out, outputs, to);
        default: return direct_tile<KIND, 6>(blocks, inputs, f, row, out, outputs, to);
    }
}

// At most MOST_DIRECT rows and outputs_of(rows) outputs.
inline void multiply_direct(int32_t kind, const uint8_t* blocks, int inputs, const Factors& f, int row, int rows, int out,
                            int outputs, float* to) {
    switch (kind) {
        case Q4_0: return direct_rows<Q4_0>(blocks, inputs, f, row, rows, out, outputs, to);
        case Q4_1: return direct_rows<Q4_1>(blocks, inputs, f, row, rows, out, outputs, to);
        default: return direct_rows<Q8_0>(blocks, inputs, f, row, rows, out, outputs, to);
    }
}
