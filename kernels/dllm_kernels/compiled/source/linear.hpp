// Linear layers: plain ones with their low-rank part, and int8 ones (dllm_kernels/int8.py says
// what is computed; integer sums are exact, and a row's scale comes from that row alone).
#pragma once

#include <vector>

#include "coded.hpp"
#include "direct.hpp"
#include "spread.hpp"

// Weights [out][in / per unit] units, or blocks of a kind, or int8 levels [out][in] with a scale and 128 times
// the sum of the levels per output. Where `coded` is set, rows are levels when they meet the blocks, and
// `turned` is `up`, see coded.hpp. The low-rank pair may be absent.
struct Linear {
    const Unit* weight;
    const float* bias;
    const Unit* down;
    const Unit* up;
    const int8_t* levels;
    const float* scale;
    const int32_t* offset;
    const uint8_t* blocks;
    const Unit* turned;
    int32_t kind, coded, outputs, inputs;
};

// Rows in uint8, the level plus 128; or coded ones.
struct Levels {
    std::vector<uint8_t> levels;
    std::vector<float> scale;
    Coded coded;
    // Makes room for the rows of a layer.
    void fit(const Linear& l, int rows) {
        if (l.coded) coded.fit(rows, l.inputs);
        if (!l.levels) return;
        if (levels.size() < (size_t)rows * l.inputs) levels.resize((size_t)rows * l.inputs);
        if (scale.size() < (size_t)rows) scale.resize(rows);
    }
};

template <class T>
inline void quantise(const Unit* from, int count, uint8_t* to, float& scale) {
    const Units sign = splat(0x7fffffffu);
    Floats top{};
    int i = 0;
    for (; i + LANES <= count; i += LANES) top = larger(top, (Floats)((Units)T::get_vector(from, i) & sign));
    float largest = max_of(top);
    for (; i < count; i++) largest = std::max(largest, std::fabs(T::get(from, i)));
    scale = std::max(largest / 127.0f, 1.17549435e-38f);
    // Adding 1.5 * 2^23 rounds to a whole number, ties to even; the levels are then at most 127.
    for (i = 0; i + LANES <= count; i += LANES) {
        Units level = (Units)(T::get_vector(from, i) / scale + 12582912.0f) - (float_to_bits(12582912.0f) - 128u);
        store(to + i, __builtin_convertvector(level, Bytes));
    }
    for (; i < count; i++) to[i] = (uint8_t)((int)std::nearbyint(T::get(from, i) / scale) + 128);
}

#if defined(__AVX512VNNI__)
constexpr bool HAS_INT8 = true;

template <int MR, int NR, bool WHOLE>
inline __attribute__((always_inline)) void step_int8(__m512i (&sum)[NR * MR], const uint8_t* x, const int8_t* w,
                                                     int inputs, __mmask64 mask) {
    __m512i b[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; n++) {
        const int8_t* from = w + (size_t)n * inputs;
        b[n] = WHOLE ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(mask, from);
        __builtin_prefetch(from + (size_t)NR * inputs, 0, 3);
    }
#pragma GCC unroll 8
    for (int r = 0; r < MR; r++) {
        const uint8_t* from = x + (size_t)r * inputs;
        __m512i a = WHOLE ? _mm512_loadu_si512(from) : _mm512_maskz_loadu_epi8(mask, from);
#pragma GCC unroll 8
        for (int n = 0; n < NR; n++) dot_int8(sum[r * NR + n], a, b[n]);
    }
}

template <int MR, int NR>
__attribute__((noinline)) void tile_int8(const Levels& x, const Linear& l, int row, int out, int32_t* to) {
    __m512i sum[NR * MR];
#pragma GCC unroll 32
    for (int i = 0; i < NR * MR; i++) sum[i] = _mm512_setzero_si512();
    const uint8_t* xs = x.levels.data() + (size_t)row * l.inputs;
    const int8_t* ws = l.levels + (size_t)out * l.inputs;
    const int inputs = l.inputs;
    int k = 0;
    for (; k + 64 <= inputs; k += 64) step_int8<MR, NR, true>(sum, xs + k, ws + k, inputs, 0);
    if (k < inputs) step_int8<MR, NR, false>(sum, xs + k, ws + k, inputs, (1ull << (inputs - k)) - 1);
#pragma GCC unroll 4
    for (int i = 0; i < NR * MR; i += 8) {
        __m512i part[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) part[j] = i + j < NR * MR ? sum[i + j] : _mm512_setzero_si512();
        _mm256_storeu_si256((__m256i*)(to + i), sums_of_eight<AddInts>(part));
    }
}

template <int MR>
inline void tiles_int8(const Levels& x, const Linear& l, int row, int out, int outputs, int32_t* to) {
    if (outputs == outputs_of(MR)) return tile_int8<MR, outputs_of(MR)>(x, l, row, out, to);
    int32_t one[8];
    for (int n = 0; n < outputs; n++) {
        tile_int8<MR, 1>(x, l, row, out + n, one);
        for (int r = 0; r < MR; r++) to[r * outputs_of(MR) + n] = one[r];
    }
}

inline void multiply_int8(const Levels& x, const Linear& l, int row, int rows, int out, int outputs, float* to) {
    int32_t found[TILE];
    switch (rows) {
        case 1: tiles_int8<1>(x, l, row, out, outputs, found); break;
        case 2: tiles_int8<2>(x, l, row, out, outputs, found); break;
        case 3: tiles_int8<3>(x, l, row, out, outputs, found); break;
        case 4: tiles_int8<4>(x, l, row, out, outputs, found); break;
        case 5: tiles_int8<5>(x, l, row, out, outputs, found); break;
        default: tiles_int8<6>(x, l, row, out, outputs, found); break;
    }
    int stride = outputs_of(rows);
    typedef int32_t FourInts __attribute__((vector_size(16)));
    for (int r = 0; r < rows; r++) {
        float scale = x.scale[row + r];
        int n = 0;
        for (; n + 4 <= outputs; n += 4) {
            FourInts exact = load<FourInts>(found + r * stride + n) - load<FourInts>(l.offset + out + n);
            store(to + r * stride + n, __builtin_convertvector(exact, Four) * (scale * load<Four>(l.scale + out + n)));
        }
        for (; n < outputs; n++)
            to[r * stride + n] = (float)(found[r * stride + n] - l.offset[out + n]) * (scale * l.scale[out + n]);
    }
}
#else
constexpr bool HAS_INT8 = false;

inline void multiply_int8(const Levels&, const Linear&, int, int, int, int, float*) {}
#endif

// Whether weights are spread for all rows: to spread plain ones pays where several tiles share them.
template <class T>
constexpr bool spreads(const Linear& l, int rows) {
    return SPREADS && T::PER_UNIT == 2 && !l.levels && !l.coded && (l.blocks || rows > MOST_ROWS);
}

// A linear layer of certain rows; open it for panels and call it for their tiles, on one thread.
template <class T>
struct Product {
    const Linear& l;
    Rows x;
    const Levels* levels = nullptr;
    Rows t = {};
    const uint8_t* noisy = nullptr;
    int place = 0;
    bool direct = false;
    Rows w = {l.weight, x.units};
    Spreading* spreading = nullptr;
    Rows wide = {};

    // Before the first panel: of a pass over these rows.
    void begin(int row, int rows) {
        direct = l.blocks && !l.coded && is_direct<T>(l.kind, rows);
        if (!spreads<T>(l, rows)) return;
        // Each thread has two places, as gate and up are multiplied side by side.
        thread_local Spreading places[2];
        spreading = &places[place];
        wide = spreading->rows(x, row, rows);
    }

    void open(int first, int last) {
        if (spreading)
            w = spreading->panel({l.weight, x.units}, l.kind, l.blocks, l.inputs, first, last);
        else if (l.blocks && !direct)
            w = unpacked<T>(l.kind, l.blocks, l.inputs, first, last, place);
    }

    // A tile with the bias.
    void operator()(int row, int rows, int out, int outputs, float* to) const {
        Rows u{l.up, t.units};
        if (direct) {
            multiply_direct(l.kind, l.blocks, l.inputs, {x, {}, t, u}, row, rows, out, outputs, to);
        } else if (spreading) {
            multiply<Spread, T>({wide, w, t, u}, row, rows, out, outputs, to);
        } else if (!l.levels) {
            multiply<T>({x, w, t, u}, row, rows, out, outputs, to);
        } else {
            multiply_int8(*levels, l, row, rows, out, outputs, to);
            if (t.data) {
                float low[TILE];
                if (outputs < outputs_of(rows)) clear(low);
                multiply<T>({t, u, {}, {}}, row, rows, out, outputs, low);
                for (int i = 0; i < rows * outputs_of(rows); i += 4) store(to + i, load<Four>(to + i) + load<Four>(low + i));
            }
        }
        if (l.bias)
            for (int r = 0; r < rows; r++)
                for (int n = 0; n < outputs; n++) to[r * outputs_of(rows) + n] += l.bias[out + n];
    }

    // What coded rows make of a panel, [rows], with the bias. Each thread has two places.
    const PanelFloats* coded(int row, int rows, int out, int outputs) const {
        thread_local std::vector<PanelFloats> places[2];
        std::vector<PanelFloats>& sums = places[place];
        if (sums.size() < (size_t)rows) sums.resize(rows);
        panel_sums(l.kind, levels->coded, row, rows, l.blocks, l.inputs, out, outputs, sums.data());
        if (t.data) add_low<T>(t, l.turned, noisy, row, rows, out, sums.data());
        if (l.bias)
            for (int r = 0; r < rows; r++)
                for (int n = 0; n < outputs; n++) sums[r][n] += l.bias[out + n];
        return sums.data();
    }
};

inline bool quantises(const Linear& l) { return l.levels || l.coded; }

// This thread's share of a layer's rows, quantised.
template <class T>
inline void quantise_share(const Linear& l, const Rows& x, int rows, int thread, int threads, Levels& to) {
    Share own(rows, 1, thread, threads);
    for (int r = own.begin; r < own.end; r++)
        if (l.coded)
            code_row<T>(x.row(r), l.inputs, r, to.coded);
        else
            quantise<T>(x.row(r), l.inputs, to.levels.data() + (size_t)r * l.inputs, to.scale[r]);
}

// Outputs [begin, end) of some rows, handed out; see hand_out, and hand_out_panel.
template <class T, class To>
inline void multiply_outputs(Product<T> product, int row, int rows, int begin, int end, const To& to) {
    if (product.l.coded) {
        for (int out = begin; out < end; out += PANEL) {
            int some = std::min(PANEL, end - out);
            hand_out_panel(row, rows, out, some, product.coded(row, rows, out, some), to);
        }
        return;
    }
    product.begin(row, rows);
    auto open = [&](int first, int last) { product.open(first, last); };
    each_tile(rows, begin, end, open, [&](int place, int count, int out, int some) {
        float found[TILE];
        product(row + place, count, out, some, found);
        hand_out(row + place, count, out, some, found, to);
    });
}

// Outputs of a thread's share come in multiples of whole tiles and panels.
constexpr int STEP = 48;

// This thread's share of the outputs, handed out; see hand_out.
template <class T, class To>
inline void multiply_share(const Product<T>& product, int rows, int thread, int threads, const To& to) {
    Share outputs(product.l.outputs, STEP, thread, threads);
    multiply_outputs(product, 0, rows, outputs.begin, outputs.end, to);
}
