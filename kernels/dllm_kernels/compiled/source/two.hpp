// Two neighbouring small blocks of a GGUF matrix as bfloat16, in registers. On processors without AVX-512's bfloat16
// there is no such thing, and blocks are unpacked one by one (blocks.hpp).
#pragma once

#include "kinds.hpp"

#if defined(__AVX512BF16__)
constexpr bool has_two(int32_t kind) { return kind == Q4_0 || kind == Q4_1 || kind == Q8_0; }
#else
constexpr bool has_two(int32_t) { return false; }
#endif

// 32 weights each.
struct Two {
    Units first, second;
};

#if defined(__AVX512BF16__)

// Lane i of the four float16 numbers that begin two blocks: scale and least value of the first, then of the second.
inline Floats spread(__m128 heads, int i) {
    return (Floats)_mm512_permutexvar_ps(_mm512_set1_epi32(i), _mm512_castps128_ps512(heads));
}

// Rounded, 16 of `low` and then 16 of `high`. Nothing below the normal numbers comes in, which the instruction takes
// for zero: sums and products of float16 numbers are never that small.
inline __m512i joined(Floats low, Floats high) {
    return (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

// A block of four bits a number has at most 16 weights: each is computed once and then looked up, which is less work
// than to compute all 32.
template <int32_t KIND>
inline Two two_of_fours(const uint8_t* from) {
    constexpr int BYTES = bytes_of(KIND), HEAD = BYTES - 16;
    const Floats numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Floats signed_numbers = numbers - (KIND == Q4_0 ? 8.0f : 0.0f);
    __m128 heads = _mm_cvtph_ps(_mm_insert_epi32(_mm_loadu_si32(from), load<int32_t>(from + BYTES), 1));
    Floats a = signed_numbers * spread(heads, 0), b = signed_numbers * spread(heads, 2);
    if constexpr (KIND == Q4_1) a += spread(heads, 1), b += spread(heads, 3);
    // The first block's weights stand first, so an index into the second's has its fifth bit set.
    const __m512i table = joined(a, b), four = _mm512_set1_epi16(15);
    const __m512i fifth = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(16), 1);
    __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(load<__m128i>(from + HEAD)),
                                            load<__m128i>(from + BYTES + HEAD), 1);
    __m512i pairs = _mm512_cvtepu8_epi16(bytes);
    auto look_up = [&](__m512i index) {
        // (index & four) | fifth
        return _mm512_permutexvar_epi16(_mm512_ternarylogic_epi32(index, four, fifth, 0xea), table);
    };
    __m512i low = look_up(pairs), high = look_up(_mm512_srli_epi16(pairs, 4));
    return {(Units)_mm512_shuffle_i64x2(low, high, 0x44), (Units)_mm512_shuffle_i64x2(low, high, 0xee)};
}

inline Two two_of_bytes(const uint8_t* from) {
    auto block = [](const uint8_t* begin, float scale) {
        return (Units)joined(__builtin_convertvector(widened((const int8_t*)begin + 2), Floats) * scale,
                             __builtin_convertvector(widened((const int8_t*)begin + 18), Floats) * scale);
    };
    const uint8_t* next = from + bytes_of(Q8_0);
    return {block(from, half_to_float(from)), block(next, half_to_float(next))};
}

template <int32_t KIND>
inline Two two_blocks(const uint8_t* from) {
    if constexpr (KIND == Q8_0)
        return two_of_bytes(from);
    else
        return two_of_fours<KIND>(from);
}

#else

// Never made: see has_two.
template <int32_t KIND>
Two two_blocks(const uint8_t*);

#endif
