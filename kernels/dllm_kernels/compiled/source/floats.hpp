// Small blocks of GGUF matrices as float32, with AVX2. Either number after number, or for each 16 of them the even ones
// and then the odd ones (`PAIRED`), as bfloat16 is multiplied where it is spread (spread.hpp).
#pragma once

#include "kinds.hpp"

#if defined(__AVX2__) && !defined(__AVX512F__)

inline void put_floats(__m256i numbers, Floats scale, Floats least, Unit* to) {
    store(to, split((Floats)_mm256_cvtepi32_ps(numbers) * scale + least));
}

// A byte holds one of the first 16 numbers and one of the others.
template <int32_t KIND, bool PAIRED>
inline void floats_of_fours(const uint8_t* from, Unit* to) {
    __m128 head = _mm_cvtph_ps(_mm_loadu_si32(from));
    Floats scale = (Floats)_mm256_broadcastss_ps(head);
    // (number - 8) * scale: these products and their sum are exact.
    Floats least = KIND == Q4_0 ? scale * -8.0f : (Floats)_mm256_broadcastss_ps(_mm_movehdup_ps(head));
    const __m256i four = _mm256_set1_epi32(15);
    const uint8_t* bytes = from + bytes_of(KIND) - 16;
    __m256i first = PAIRED ? _mm256_cvtepu16_epi32(load<__m128i>(bytes)) : (__m256i)widened(bytes);
    __m256i second = PAIRED ? _mm256_srli_epi32(first, 8) : (__m256i)widened(bytes + 8);
    put_floats(_mm256_and_si256(first, four), scale, least, to);
    put_floats(_mm256_and_si256(second, four), scale, least, to + 8);
    put_floats(_mm256_and_si256(_mm256_srli_epi32(first, 4), four), scale, least, to + 16);
    put_floats(_mm256_srli_epi32(second, 4), scale, least, to + 24);
}

inline void paired_floats_of_bytes(const uint8_t* from, Unit* to) {
    Floats scale = splat(half_to_float(from)), none = splat(-0.0f);
#pragma GCC unroll 2
    for (int half = 0; half < IN_BLOCK; half += 16) {
        __m256i pairs = _mm256_cvtepi16_epi32(load<__m128i>(from + 2 + half));
        put_floats(_mm256_srai_epi32(_mm256_slli_epi32(pairs, 24), 24), scale, none, to + half);
        put_floats(_mm256_srai_epi32(pairs, 8), scale, none, to + half + 8);
    }
}

#else

// Never made.
template <int32_t KIND, bool PAIRED>
void floats_of_fours(const uint8_t*, Unit*);
void paired_floats_of_bytes(const uint8_t*, Unit*);

#endif
