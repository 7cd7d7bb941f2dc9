// Products of a few rows with large matrices. Rows of both are contiguous, so weights stay as
// they were loaded. Every element is summed lane by lane and then over the lanes in one fixed
// order, whatever the tile: a row's result cannot depend on how many rows there are.
#pragma once

#include <algorithm>

#include "pool.hpp"
#include "simd.hpp"

// Outputs between the weights that are multiplied and those that are fetched.
constexpr int AHEAD = 8;

// Rows [.., units] one behind another, from number `first` on.
struct Rows {
    const Unit* data = nullptr;
    int units = 0;
    int first = 0;
    bool near = false;  // in the first-level cache
    const Unit* row(int index) const { return data + (size_t)(index - first) * units; }
};

// x [rows] times w [outputs], and then t times u: the low-rank part continues the same sums.
struct Factors {
    Rows x, w, t, u;
};

// Of x86-64 without AVX-512; larger tiles would spill their sums.
#if defined(__x86_64__) && !defined(__AVX512F__)
constexpr bool FEW_REGISTERS = true;
#else
constexpr bool FEW_REGISTERS = false;
#endif
constexpr int MOST_ROWS = FEW_REGISTERS ? 3 : 6;
// Outputs of a tile: accumulators fit the registers, and loads stay behind multiplications.
constexpr int outputs_of(int rows) { return rows <= (FEW_REGISTERS ? 1 : 2) ? 8 : 4; }
// Room for the results of a tile: to[r * outputs_of(rows) + n].
constexpr int TILE = 32;

// For tiles that are not whole; others would pay for it as much as for their sums.
inline void clear(float (&tile)[TILE]) { std::fill_n(tile, TILE, 0.0f); }

template <class T, int MR, int NR, bool FETCH>
inline __attribute__((always_inline)) void accumulate(Floats (&sum)[NR * MR], const Rows& x, int row, const Rows& w, int out) {
    const Unit* xs[MR];
    const Unit* ws[NR];
    for (int r = 0; r < MR; r++) xs[r] = x.row(row + r);
    for (int n = 0; n < NR; n++) ws[n] = w.row(out + n);
    int k = 0;
    for (; k + LANES <= x.units; k += LANES) {
        Units b[NR];
#pragma GCC unroll 8
        for (int n = 0; n < NR; n++) {
            b[n] = load<Units>(ws[n] + k);
            // Weights of the next panel, on their way while this one is multiplied by all rows.
            if constexpr (FETCH) __builtin_prefetch(ws[n] + k + (size_t)AHEAD * w.units, 0, 3);
        }
#pragma GCC unroll 8
        for (int r = 0; r < MR; r++) {
            Units a = load<Units>(xs[r] + k);
#pragma GCC unroll 8
            for (int n = 0; n < NR; n++) sum[r * NR + n] = T::dot(sum[r * NR + n], b[n], a);
        }
    }
    if (k == x.units) return;
    Units b[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; n++) b[n] = load_part(ws[n] + k, x.units - k);
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++) {
        Units a = load_part(xs[r] + k, x.units - k);
#pragma GCC unroll 8
        for (int n = 0; n < NR; n++) sum[r * NR + n] = T::dot(sum[r * NR + n], b[n], a);
    }
}

// to[r * NR + n] for NR outputs of MR rows. A function of its own, so that its sums get the registers.
template <class T, class Low, int MR, int NR>
__attribute__((noinline)) void tile(const Factors& f, int row, int out, float* to) {
    Floats sum[NR * MR];
#pragma GCC unroll 32
    for (int i = 0; i < NR * MR; i++) sum[i] = Floats{};
    if (f.w.near)
        accumulate<T, MR, NR, false>(sum, f.x, row, f.w, out);
    else
        accumulate<T, MR, NR, true>(sum, f.x, row, f.w, out);
    if (f.t.data) accumulate<Low, MR, NR, true>(sum, f.t, row, f.u, out);
    sums<NR * MR>(sum, to);
}

template <class T, class Low, int MR>
inline void tile_of(const Factors& f, int row, int out, int outputs, float* to) {
    if (outputs == outputs_of(MR)) return tile<T, Low, MR, outputs_of(MR)>(f, row, out, to);
    float one[8];
    for (int n = 0; n < outputs; n++) {
        tile<T, Low, MR, 1>(f, row, out + n, one);
        for (int r = 0; r < MR; r++) to[r * outputs_of(MR) + n] = one[r];
    }
}

// At most MOST_ROWS rows and outputs_of(rows) outputs; the low-rank part may be of another type.
template <class T, class Low = T>
inline void multiply(const Factors& f, int row, int rows, int out, int outputs, float* to) {
    switch (rows) {
        case 1: return tile_of<T, Low, 1>(f, row, out, outputs, to);
        case 2: return tile_of<T, Low, 2>(f, row, out, outputs, to);
        case 3: return tile_of<T, Low, 3>(f, row, out, outputs, to);
        case 4: return tile_of<T, Low, 4>(f, row, out, outputs, to);
        case 5: return tile_of<T, Low, 5>(f, row, out, outputs, to);
        default: return tile_of<T, Low, 6>(f, row, out, outputs, to);
    }
}

// Outputs that are multiplied with all rows before the next ones are: they fit a first-level cache, or a second-level one.
constexpr int panel_of(int rows) { return rows <= 36 ? 8 : SPREADS ? 48 : 192; }

// Visits all tiles of rows x [begin, end) so that weights come from memory once; each panel is opened before.
template <class Open, class Visit>
inline void each_tile(int rows, int begin, int end, const Open& open, const Visit& visit) {
    int groups = (rows + MOST_ROWS - 1) / MOST_ROWS, panel = panel_of(rows);
    for (int first = begin; first < end; first += panel) {
        int last = std::min(first + panel, end);
        open(first, last);
        for (int group = 0; group < groups; group++) {
            int row = (int)((int64_t)rows * group / groups), count = (int)((int64_t)rows * (group + 1) / groups) - row;
            int step = outputs_of(count);
            for (int out = first; out < last; out += step) visit(row, count, out, std::min(step, last - out));
        }
    }
}

inline void no_panel(int, int) {}

// Four neighbouring results of a row.
typedef float Four __attribute__((vector_size(16)));

// Visits to(row, output, Four) where four are whole, and to(row, output, float) for the rest.
template <class To>
inline void hand_out(int row, int rows, int out, int outputs, const float* found, const To& to) {
    int stride = outputs_of(rows);
    for (int r = 0; r < rows; r++) {
        const float* own = found + r * stride;
        int n = 0;
        for (; n + 4 <= outputs; n += 4) to(row + r, out + n, load<Four>(own + n));
        for (; n < outputs; n++) to(row + r, out + n, own[n]);
    }
}
