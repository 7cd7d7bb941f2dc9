// Weights and rows in bfloat16 where they are multiplied as float32: with AVX2, whose products know nothing shorter. A
// vector of units becomes two, its even numbers and its odd ones, in the order in which BFloat16::dot adds their products.
// So sums have its bits, while a weight is widened once for all rows, and a row once for all weights.
#pragma once

#include <vector>

#include "blocks.hpp"

// Spread numbers are multiplied like any float32.
using Spread = Float32;

// Of a bfloat16 row of so many units; a vector that is not whole is filled up with zeros.
constexpr int spread_units(int units) { return (units + LANES - 1) / LANES * LANES * 2; }

inline void spread_row(const Unit* from, int units, Unit* to) {
    for (int k = 0; k < units; k += LANES, to += 2 * LANES) {
        Units both = k + LANES <= units ? load<Units>(from + k) : load_part(from + k, units - k);
        store(to, both << 16), store(to + LANES, both & 0xffff0000u);
    }
}

template <int32_t KIND>
inline void spread_blocks(const uint8_t* from, int inputs, Unit* to) {
    for (int at = 0; at < inputs; at += IN_BLOCK, from += bytes_of(KIND)) {
        __builtin_prefetch(from + FETCHED, 0, 3);
        if constexpr (KIND == Q8_0)
            paired_floats_of_bytes(from, to + at);
        else
            floats_of_fours<KIND, true>(from, to + at);
    }
}

// A row of blocks; `room` is for as many units as it has in bfloat16.
inline void spread_blocks(int32_t kind, const uint8_t* from, int inputs, Unit* to, Unit* room) {
    if constexpr (SPREADS) {
        if (kind == Q4_0) return spread_blocks<Q4_0>(from, inputs, to);
        if (kind == Q4_1) return spread_blocks<Q4_1>(from, inputs, to);
        if (kind == Q8_0) return spread_blocks<Q8_0>(from, inputs, to);
    }
    unpack_row<BFloat16>(kind, from, inputs, room);
    spread_row(room, inputs / 2, to);
}

// What a thread has spread for one product: rows, and a panel of weights.
class Spreading {
  public:
    Rows rows(const Rows& x, int first, int count) {
        fit(rows_, x.units, count);
        for (int r = 0; r < count; r++) spread_row(x.row(first + r), x.units, at(rows_, x.units, r));
        return {rows_.data(), spread_units(x.units), first};
    }

    // Outputs [first, last) of plain weights, or of blocks of a kind.
    Rows panel(const Rows& w, int32_t kind, const uint8_t* blocks, int inputs, int first, int last) {
        const int units = inputs / 2;
        fit(panel_, units, last - first);
        room_.resize(units);
        for (int n = first; n < last; n++) {
            Unit* to = at(panel_, units, n - first);
            if (blocks)
                spread_blocks(kind, blocks + n * row_bytes(kind, inputs), inputs, to, room_.data());
            else
                spread_row(w.row(n), units, to);
        }
        return {panel_.data(), spread_units(units), first, true};
    }

  private:
    std::vector<Unit> rows_, panel_, room_;

    static void fit(std::vector<Unit>& to, int units, int count) {
        size_t wanted = (size_t)count * spread_units(units);
        if (to.size() < wanted) to.resize(wanted);
    }
    static Unit* at(std::vector<Unit>& in, int units, int row) { return in.data() + (size_t)row * spread_units(units); }
};
