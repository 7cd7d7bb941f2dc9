// A panel: one block, 32 numbers, of PANEL neighbouring outputs, turned so that a lane is an output, and what
// rows in int8 make of it. Integer sums are exact, so every instruction set finds the same ones.
#pragma once

#include "blocks.hpp"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#if defined(__AVX512VNNI__)
constexpr int PANEL = 16;
#else
constexpr int PANEL = 8;
#endif

typedef float PanelFloats __attribute__((vector_size(PANEL * 4)));
typedef int32_t PanelInts __attribute__((vector_size(PANEL * 4)));

// Where the numbers of a block begin.
constexpr int numbers_at(int32_t kind) { return kind == Q4_1 ? 4 : 2; }

inline int32_t load_four(const void* from) {
    int32_t found;
    std::memcpy(&found, from, 4);
    return found;
}

// Scales and, of Q4_1, least values of a panel.
struct Heads {
    PanelFloats scale, least;
};

#if defined(__AVX512VNNI__)

// sum += four products of uint8 and int8 a lane. Written out, because GCC 12 copies every sum
// around the intrinsic and spills half of them.
inline __attribute__((always_inline)) void dot_int8(__m512i& sum, __m512i a, __m512i b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// What is added to the numbers before they are multiplied, as the instruction wants them unsigned.
constexpr int above(int32_t kind) { return kind == Q8_0 ? 128 : kind == Q4_0 ? 8 : 0; }

inline Heads heads(const uint8_t* const (&rows)[PANEL]) {
    alignas(64) int32_t all[PANEL];
#pragma GCC unroll 16
    for (int n = 0; n < PANEL; n++) all[n] = load_four(rows[n]);
    __m512i both = _mm512_load_si512(all);
    return {(PanelFloats)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(both)),
            (PanelFloats)_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)))};
}

// Four bytes of all outputs in each vector: bytes 0-3, 4-7, 8-11 and 12-15 from `at` on.
inline void turn(const uint8_t* const (&rows)[PANEL], int at, __m512i* to) {
    __m512i m[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        m[i] = _mm512_castsi128_si512(load<__m128i>(rows[i] + at));
        m[i] = _mm512_inserti32x4(m[i], load<__m128i>(rows[i + 4] + at), 1);
        m[i] = _mm512_inserti32x4(m[i], load<__m128i>(rows[i + 8] + at), 2);
        m[i] = _mm512_inserti32x4(m[i], load<__m128i>(rows[i + 12] + at), 3);
    }
    __m512i a = _mm512_unpacklo_epi32(m[0], m[1]), b = _mm512_unpackhi_epi32(m[0], m[1]);
    __m512i c = _mm512_unpacklo_epi32(m[2], m[3]), d = _mm512_unpackhi_epi32(m[2], m[3]);
    to[0] = _mm512_unpacklo_epi64(a, c), to[1] = _mm512_unpackhi_epi64(a, c);
    to[2] = _mm512_unpacklo_epi64(b, d), to[3] = _mm512_unpackhi_epi64(b, d);
}

template <int32_t KIND>
struct Numbers {
    __m512i four[8];

    explicit Numbers(const uint8_t* const (&rows)[PANEL]) {
        turn(rows, numbers_at(KIND), four);
        if constexpr (KIND == Q8_0) {
            turn(rows, numbers_at(KIND) + 16, four + 4);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) four[i] = _mm512_xor_si512(four[i], _mm512_set1_epi8(-128));
        } else {
            const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                four[4 + i] = _mm512_and_si512(_mm512_srli_epi16(four[i], 4), low);
                four[i] = _mm512_and_si512(four[i], low);
            }
        }
    }

    PanelInts times(const int8_t* x) const {
        __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) dot_int8(sum, four[i], _mm512_set1_epi32(load_four(x + 4 * i)));
        return (PanelInts)sum;
    }
};

#elif defined(__AVX2__)

// Of Q8_0 the signs go to the rows, because sums of two products of uint8 and int8 saturate.
constexpr int above(int32_t kind) { return kind == Q4_0 ? 8 : 0; }

inline Heads heads(const uint8_t* const (&rows)[PANEL]) {
    __m128i half[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const uint8_t* const* four = rows + 4 * i;
        __m128i a = _mm_unpacklo_epi32(_mm_cvtsi32_si128(load_four(four[0])), _mm_cvtsi32_si128(load_four(four[1])));
        __m128i b = _mm_unpacklo_epi32(_mm_cvtsi32_si128(load_four(four[2])), _mm_cvtsi32_si128(load_four(four[3])));
        half[i] = _mm_unpacklo_epi64(a, b);
    }
    const __m128i low = _mm_set1_epi32(0xffff);
    __m128i scale = _mm_packus_epi32(_mm_and_si128(half[0], low), _mm_and_si128(half[1], low));
    __m128i least = _mm_packus_epi32(_mm_srli_epi32(half[0], 16), _mm_srli_epi32(half[1], 16));
    return {(PanelFloats)_mm256_cvtph_ps(scale), (PanelFloats)_mm256_cvtph_ps(least)};
}

// Four bytes of all outputs in each vector: bytes 0-3, 4-7, 8-11 and 12-15 from `at` on.
inline void turn(const uint8_t* const (&rows)[PANEL], int at, __m256i* to) {
    __m256i m[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) m[i] = _mm256_loadu2_m128i((__m128i*)(rows[i + 4] + at), (__m128i*)(rows[i] + at));
    __m256i a = _mm256_unpacklo_epi32(m[0], m[1]), b = _mm256_unpackhi_epi32(m[0], m[1]);
    __m256i c = _mm256_unpacklo_epi32(m[2], m[3]), d = _mm256_unpackhi_epi32(m[2], m[3]);
    to[0] = _mm256_unpacklo_epi64(a, c), to[1] = _mm256_unpackhi_epi64(a, c);
    to[2] = _mm256_unpacklo_epi64(b, d), to[3] = _mm256_unpackhi_epi64(b, d);
}

template <int32_t KIND>
struct Numbers {
    __m256i four[8];

    explicit Numbers(const uint8_t* const (&rows)[PANEL]) {
        turn(rows, numbers_at(KIND), four);
        if constexpr (KIND == Q8_0) {
            turn(rows, numbers_at(KIND) + 16, four + 4);
        } else {
            const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                four[4 + i] = _mm256_and_si256(_mm256_srli_epi16(four[i], 4), low);
                four[i] = _mm256_and_si256(four[i], low);
            }
        }
    }

    // Sixteen products of numbers below 16 and levels are below 2^15.
    PanelInts times(const int8_t* x) const {
        const __m256i ones = _mm256_set1_epi16(1);
        __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m256i level = _mm256_set1_epi32(load_four(x + 4 * i));
            if constexpr (KIND == Q8_0) {
                __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(four[i]), _mm256_sign_epi8(level, four[i]));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(two, ones));
            } else {
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(four[i], level));
            }
        }
        return (PanelInts)(KIND == Q8_0 ? sum : _mm256_madd_epi16(sum, ones));
    }
};

#else

constexpr int above(int32_t kind) { return kind == Q4_0 ? 8 : 0; }

inline Heads heads(const uint8_t* const (&rows)[PANEL]) {
    Heads found;
    for (int n = 0; n < PANEL; n++) {
        found.scale[n] = half_to_float(rows[n]);
        found.least[n] = half_to_float(rows[n] + 2);
    }
    return found;
}

template <int32_t KIND>
struct Numbers {
    int8_t four[8][PANEL][4];

    explicit Numbers(const uint8_t* const (&rows)[PANEL]) {
        for (int n = 0; n < PANEL; n++) {
            const uint8_t* from = rows[n] + numbers_at(KIND);
            for (int k = 0; k < IN_BLOCK; k++) {
                uint8_t both = from[KIND == Q8_0 ? k : k % 16];
                four[k / 4][n][k % 4] = (int8_t)(KIND == Q8_0 ? both : k < 16 ? both & 15 : both >> 4);
            }
        }
    }

#if defined(__ARM_NEON)
    PanelInts times(const int8_t* x) const {
        PanelInts found;
        for (int half = 0; half < PANEL; half += 4) {
            // Two outputs in each; four products of two levels below 128 fit into 16 bits.
            int32x4_t low = vdupq_n_s32(0), high = low;
            for (int i = 0; i < 8; i += 2) {
                int8x8_t a = vreinterpret_s8_s32(vdup_n_s32(load_four(x + 4 * i)));
                int8x8_t b = vreinterpret_s8_s32(vdup_n_s32(load_four(x + 4 * i + 4)));
                const int8_t* first = &four[i][half][0];
                const int8_t* second = &four[i + 1][half][0];
                low = vpadalq_s16(low, vmlal_s8(vmull_s8(vld1_s8(first), a), vld1_s8(second), b));
                high = vpadalq_s16(high, vmlal_s8(vmull_s8(vld1_s8(first + 8), a), vld1_s8(second + 8), b));
            }
            int32x4_t sums = vpaddq_s32(low, high);
            std::memcpy((int32_t*)&found + half, &sums, sizeof sums);
        }
        return found;
    }
#else
    PanelInts times(const int8_t* x) const {
        PanelInts sum{};
        for (int i = 0; i < 8; i++)
            for (int n = 0; n < PANEL; n++)
                for (int k = 0; k < 4; k++) sum[n] += four[i][n][k] * x[4 * i + k];
        return sum;
    }
#endif
};

#endif
