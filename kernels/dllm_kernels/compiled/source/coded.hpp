// Products of blocks with rows in int8 that have a scale for each of their blocks, too: another model than that
// of the weights alone (dllm_kernels/coded.py says what is computed), and the cheapest for many rows. The number
// of rows and threads changes nothing: an output's blocks are added one after another.
#pragma once

#include "panel.hpp"

// Rows as blocks of 32 levels, [block][row].
struct Coded {
    int rows = 0;
    std::vector<int8_t> levels;
    std::vector<float> scale;
    std::vector<int32_t> sum;    // of the levels
    std::vector<float> moment;   // scale * sum

    void fit(int count, int inputs) {
        rows = count;
        size_t blocks = (size_t)count * (inputs / IN_BLOCK);
        if (scale.size() >= blocks) return;
        levels.resize(blocks * IN_BLOCK), scale.resize(blocks), sum.resize(blocks), moment.resize(blocks);
    }
};

// One row, in levels of its blocks.
template <class T>
inline void code_row(const Unit* from, int inputs, int row, Coded& to) {
    const Units sign = splat(0x7fffffffu);
    for (int block = 0; block < inputs / IN_BLOCK; block++) {
        Floats x[IN_BLOCK / LANES], top{};
#pragma GCC unroll 8
        for (int i = 0; i < IN_BLOCK / LANES; i++) {
            x[i] = T::get_vector(from, block * IN_BLOCK + i * LANES);
            top = larger(top, (Floats)((Units)x[i] & sign));
        }
        size_t place = (size_t)block * to.rows + row;
        float scale = std::max(max_of(top) / 127.0f, 1.17549435e-38f);
        int32_t sum = 0;
        int8_t* levels = to.levels.data() + place * IN_BLOCK;
        Ints all{};
#pragma GCC unroll 8
        for (int i = 0; i < IN_BLOCK / LANES; i++) {
            // Adding 1.5 * 2^23 rounds to a whole number, ties to even.
            Ints level = (Ints)(x[i] / scale + 12582912.0f) - (Ints)splat(12582912.0f);
            all += level;
            store(levels + i * LANES, __builtin_convertvector(level, SignedBytes));
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) sum += all[i];
        to.scale[place] = scale, to.sum[place] = sum, to.moment[place] = scale * (float)sum;
    }
}

// sums [rows][PANEL] of outputs from `out` on, at most PANEL; lanes behind them repeat the last one.
template <int32_t KIND>
inline void panel_sums(const Coded& x, int first, int rows, const uint8_t* blocks, int inputs, int out, int outputs,
                       PanelFloats* sums) {
    const size_t bytes = row_bytes(KIND, inputs);
    const uint8_t* row[PANEL];
#pragma GCC unroll 16
    for (int n = 0; n < PANEL; n++) row[n] = blocks + (out + std::min(n, outputs - 1)) * bytes;
    // The next panel's bytes, on their way while this one is multiplied.
    const uint8_t* next = blocks + (out + outputs) * bytes;
    for (int r = 0; r < rows; r++) sums[r] = PanelFloats{};
    for (int block = 0; block < inputs / IN_BLOCK; block++) {
        for (int line = 0; line < PANEL * bytes_of(KIND); line += 64) __builtin_prefetch(next + line, 0, 3);
        next += PANEL * bytes_of(KIND);
        const Heads head = heads(row);
        const Numbers<KIND> numbers(row);
        size_t place = (size_t)block * x.rows + first;
        for (int r = 0; r < rows; r++, place++) {
            PanelInts whole = numbers.times(x.levels.data() + place * IN_BLOCK);
            if constexpr (above(KIND) != 0) whole -= above(KIND) * x.sum[place];
            PanelFloats found = sums[r];
            found += __builtin_convertvector(whole, PanelFloats) * (head.scale * x.scale[place]);
            if constexpr (KIND == Q4_1) found += head.least * x.moment[place];
            sums[r] = found;
        }
#pragma GCC unroll 16
        for (int n = 0; n < PANEL; n++) row[n] += bytes_of(KIND);
    }
}

inline void panel_sums(int32_t kind, const Coded& x, int first, int rows, const uint8_t* blocks, int inputs, int out,
                       int outputs, PanelFloats* sums) {
    switch (kind) {
        case Q4_0: return panel_sums<Q4_0>(x, first, rows, blocks, inputs, out, outputs, sums);
        case Q4_1: return panel_sums<Q4_1>(x, first, rows, blocks, inputs, out, outputs, sums);
        default: return panel_sums<Q8_0>(x, first, rows, blocks, inputs, out, outputs, sums);
    }
}

// Outputs that lie side by side in a turned matrix, [outputs / WIDE][units of a row][WIDE]: a panel of any machine.
constexpr int WIDE = 16;
typedef Unit PanelUnits __attribute__((vector_size(PANEL * 4)));

// The number at `index` of each unit.
template <class T>
inline PanelFloats numbers_of(PanelUnits units, int index) {
    if constexpr (T::PER_UNIT == 1) return (PanelFloats)units;
    return (PanelFloats)(index == 0 ? units << 16 : units & 0xffff0000u);
}

// Adds so many rows of t [rank] times a panel of a turned matrix to their sums.
template <class T, int ROWS>
inline void add_low_rows(const Rows& t, const int* own, const Unit* panel, PanelFloats* const* sums) {
    constexpr int STEP = 64, PER = T::PER_UNIT;
    PanelFloats found[ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) found[i] = *sums[i];
    for (int begin = 0; begin < t.units; begin += STEP / PER) {
        int some = std::min(STEP / PER, t.units - begin);
        float factors[ROWS][STEP];
        for (int i = 0; i < ROWS; i++) get_row<T>(factors[i], t.row(own[i]) + begin, some * PER);
        for (int unit = 0; unit < some; unit++) {
            PanelUnits both = load<PanelUnits>(panel + (size_t)(begin + unit) * WIDE);
#pragma GCC unroll 2
            for (int index = 0; index < PER; index++) {
                PanelFloats u = numbers_of<T>(both, index);
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; i++) found[i] += u * factors[i][unit * PER + index];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) *sums[i] = found[i];
}

// Adds t [rows][rank] times a turned matrix to a panel's sums, where rows are noisy.
template <class T>
inline void add_low(const Rows& t, const Unit* turned, const uint8_t* noisy, int row, int rows, int out,
                    PanelFloats* sums) {
    constexpr int MOST = 6;
    const Unit* panel = turned + (size_t)(out / WIDE) * t.units * WIDE + out % WIDE;
    for (int r = 0; r < rows;) {
        int own[MOST], count = 0;
        PanelFloats* to[MOST];
        for (; r < rows && count < MOST; r++)
            if (noisy[row + r]) own[count] = row + r, to[count++] = sums + r;
        if (count) DLLM_BY_ROWS(count, (add_low_rows<T, MR>(t, own, panel, to)))
    }
}

// Visits to(row, output, PanelFloats) where a panel is whole, and to(row, output, float) for the others' outputs.
template <class To>
inline void hand_out_panel(int row, int rows, int out, int outputs, const PanelFloats* sums, const To& to) {
    for (int r = 0; r < rows; r++)
        if (outputs == PANEL)
            to(row + r, out, sums[r]);
        else
            for (int n = 0; n < outputs; n++) to(row + r, out + n, sums[r][n]);
}
