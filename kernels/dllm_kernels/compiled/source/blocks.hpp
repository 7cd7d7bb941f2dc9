// Matrices as GGUF files hold them: rows of blocks of 32 small numbers with a scale, and in Q4_1 a least
// value, in float16. Format: ggml-org/ggml ggml-common.h (block_q4_0, block_q4_1, block_q8_0).
//
// A row is unpacked to the very weights that dequantising to bfloat16 gives: a number times its scale has
// at most 19 digits, so that the sum with the least value is rounded once in float32, fused or not.
#pragma once

#include <vector>

#include "product.hpp"

// ggml's numbers of the types.
enum Kind : int32_t { Q4_0 = 2, Q4_1 = 3, Q8_0 = 8 };

// Numbers of a block.
constexpr int IN_BLOCK = 32;
// Bytes between what is unpacked and what is fetched.
constexpr int FETCHED = 640;

constexpr int bytes_of(int32_t kind) { return kind == Q4_0 ? 18 : kind == Q4_1 ? 20 : 34; }

// The two float16 numbers that begin a block of Q4_1.
struct Pair {
    float scale, least;
};

inline float half_to_float(const uint8_t* from) {
    uint16_t half;
    std::memcpy(&half, from, 2);
#if defined(__F16C__)
    return _cvtsh_ss(half);
#elif defined(__aarch64__)
    __fp16 x;
    std::memcpy(&x, &half, 2);
    return x;
#else
    // Exponents differ by 112; the product also gives what is below the normal numbers its place.
    float x = bits_to_float((Unit)(half & 0x7fffu) << 13) * 0x1p112f;
    return half & 0x8000u ? -x : x;
#endif
}

inline Pair halves_to_floats(const uint8_t* from) {
#if defined(__F16C__)
    __m128 both = _mm_cvtph_ps(_mm_loadu_si32(from));
    return {both[0], both[1]};
#else
    return {half_to_float(from), half_to_float(from + 2)};
#endif
}

// 16 weights.
template <class T>
inline void put_weights(Unit* to, int at, const Floats (&x)[16 / LANES]) {
#if defined(__AVX512BF16__)
    // The instruction takes numbers below the normal ones for zero; sums of float16 numbers are never that small.
    if constexpr (T::PER_UNIT == 2) return store((uint16_t*)to + at, _mm512_cvtneps_pbh((__m512)x[0]));
#elif defined(__AVX2__) && !defined(__AVX512F__)
    if constexpr (T::PER_UNIT == 2) {
        __m256i both = _mm256_packus_epi32((__m256i)((Units)split(x[0]) >> 16), (__m256i)((Units)split(x[1]) >> 16));
        return store((uint16_t*)to + at, _mm256_permute4x64_epi64(both, 0xd8));
    }
#endif
#pragma GCC unroll 4
    for (int i = 0; i < 16 / LANES; i++) T::set_vector(to, at + i * LANES, T::PER_UNIT == 1 ? split(x[i]) : x[i]);
}

// The first 16 of a block's numbers are the lower halves of its bytes; each is `above` too large.
template <class T>
inline void unpack_fours(const uint8_t* bytes, int above, float scale, float least, Unit* to, int at) {
    Floats low[16 / LANES], high[16 / LANES];
#pragma GCC unroll 4
    for (int i = 0; i < 16 / LANES; i++) {
        Ints both = widened(bytes + i * LANES);
        low[i] = __builtin_convertvector((both & 15) - above, Floats) * scale + least;
        high[i] = __builtin_convertvector((both >> 4) - above, Floats) * scale + least;
    }
    put_weights<T>(to, at, low);
    put_weights<T>(to, at + 16, high);
}

template <class T>
inline void unpack_bytes(const uint8_t* bytes, float scale, Unit* to, int at) {
#pragma GCC unroll 2
    for (int half = 0; half < IN_BLOCK; half += 16) {
        Floats x[16 / LANES];
#pragma GCC unroll 4
        for (int i = 0; i < 16 / LANES; i++)
            x[i] = __builtin_convertvector(widened((const int8_t*)bytes + half + i * LANES), Floats) * scale;
        put_weights<T>(to, at + half, x);
    }
}

template <class T, int32_t KIND>
inline void unpack_row(const uint8_t* from, int inputs, Unit* to) {
    for (int at = 0; at < inputs; at += IN_BLOCK, from += bytes_of(KIND)) {
        __builtin_prefetch(from + FETCHED, 0, 3);
        if constexpr (KIND == Q4_0) unpack_fours<T>(from + 2, 8, half_to_float(from), -0.0f, to, at);
        if constexpr (KIND == Q8_0) unpack_bytes<T>(from + 2, half_to_float(from), to, at);
        if constexpr (KIND == Q4_1) {
            Pair head = halves_to_floats(from);
            unpack_fours<T>(from + 4, 0, head.scale, head.least, to, at);
        }
    }
}

// Units of one row of `inputs` numbers, a multiple of IN_BLOCK.
template <class T>
inline void unpack_row(int32_t kind, const uint8_t* from, int inputs, Unit* to) {
    switch (kind) {
        case Q4_0: return unpack_row<T, Q4_0>(from, inputs, to);
        case Q4_1: return unpack_row<T, Q4_1>(from, inputs, to);
        default: return unpack_row<T, Q8_0>(from, inputs, to);
    }
}

// Rows [first, last) of a matrix, unpacked once for all that is multiplied with them. Each thread has two places,
// as gate and up are multiplied side by side; what lies in a place is lost with the next call.
template <class T>
inline Rows unpacked(int32_t kind, const uint8_t* blocks, int inputs, int first, int last, int place) {
    thread_local std::vector<Unit> places[2];
    int units = inputs / T::PER_UNIT;
    size_t bytes = (size_t)(inputs / IN_BLOCK) * bytes_of(kind);
    std::vector<Unit>& to = places[place];
    to.resize((size_t)(last - first) * units);
    for (int row = first; row < last; row++)
        unpack_row<T>(kind, blocks + row * bytes, inputs, to.data() + (size_t)(row - first) * units);
    return {to.data(), units, first, true};
}
