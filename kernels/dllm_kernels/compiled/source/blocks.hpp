// Blocks of GGUF matrices as rows of weights. A row is unpacked to the very weights that dequantising to bfloat16 gives:
// a number times its scale has at most 23 digits, so that the sum with the least value is rounded once in float32,
// fused or not.
#pragma once

#include <vector>

#include "floats.hpp"
#include "product.hpp"
#include "two.hpp"

// Bytes between what is unpacked and what is fetched: the faster the one, the further off the other has to be.
constexpr int FETCHED = has_two(Q8_0) ? 2560 : 640;

// The two float16 numbers that begin a block which has a least value.
struct Pair {
    float scale, least;
};

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

// What 16 numbers are multiplied with and added to, and where they go.
struct Group {
    float scale, least;
    int at;
};

// Bytes whose lower halves are 16 numbers and whose upper halves are others. What a number is more than its
// half, more(half, i) gives for LANES of them from number i on.
template <class T, class More>
inline __attribute__((always_inline)) void unpack_halves(const uint8_t* bytes, const More& more, const Group& low,
                                                         const Group& high, Unit* to) {
    Floats x[16 / LANES], y[16 / LANES];
#pragma GCC unroll 4
    for (int i = 0; i < 16 / LANES; i++) {
        Ints both = widened(bytes + i * LANES);
        x[i] = __builtin_convertvector((both & 15) + more(0, i * LANES), Floats) * low.scale + low.least;
        y[i] = __builtin_convertvector((both >> 4) + more(1, i * LANES), Floats) * high.scale + high.least;
    }
    put_weights<T>(to, low.at, x);
    put_weights<T>(to, high.at, y);
}

// A small block of four bits a number; its first 16 numbers are the lower halves.
template <class T>
inline void unpack_fours(const uint8_t* bytes, int above, float scale, float least, Unit* to, int at) {
    auto more = [above](int, int) { return Ints{} - above; };
    unpack_halves<T>(bytes, more, {scale, least, at}, {scale, least, at + 16}, to);
}

// The same with a fifth bit for each number in four bytes.
template <class T>
inline void unpack_fives(const uint8_t* fifth, const uint8_t* bytes, int above, float scale, float least, Unit* to,
                         int at) {
    Unit bits;
    std::memcpy(&bits, fifth, 4);
    Units place{};
    for (int i = 0; i < LANES; i++) place[i] = i;
    auto more = [=](int half, int i) {
        return (Ints)((((splat(bits) >> (half * 16 + i)) >> place) & 1u) << 4) - above;
    };
    unpack_halves<T>(bytes, more, {scale, least, at}, {scale, least, at + 16}, to);
}

// Number `i` of the eight factors, and of the eight least values, of six bits each that are packed in 12 bytes.
inline float factor_of(const uint8_t* packed, int i) {
    return i < 4 ? packed[i] & 63 : (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
}
inline float least_of(const uint8_t* packed, int i) {
    return i < 4 ? packed[i + 4] & 63 : (packed[i + 4] >> 4) | (packed[i] >> 6) << 4;
}

// A large block of four or five bits a number: 64 numbers are the lower halves of 32 bytes, then the upper ones.
// The fifth bits of all stand in 32 bytes, a bit of each byte for 32 numbers.
template <class T, bool FIFTH>
inline void unpack_large(const uint8_t* from, Unit* to, int at) {
    const auto [scale, least] = halves_to_floats(from);
    const uint8_t *packed = from + 4, *fifth = from + 16, *bytes = from + (FIFTH ? 48 : 16);
    for (int pair = 0; pair < 8; pair += 2, bytes += 32, at += 64) {
        float low = scale * factor_of(packed, pair), high = scale * factor_of(packed, pair + 1);
        float under = -(least * least_of(packed, pair)), over = -(least * least_of(packed, pair + 1));
#pragma GCC unroll 2
        for (int half = 0; half < 32; half += 16) {
            auto more = [&](int upper, int i) {
                return FIFTH ? ((widened(fifth + half + i) >> (pair + upper)) & 1) << 4 : Ints{};
            };
            unpack_halves<T>(bytes + half, more, {low, under, at + half}, {high, over, at + 32 + half}, to);
        }
    }
}

// A large block of six bits a number: four in 128 bytes, two in 64; every 16 numbers have a signed factor.
template <class T>
inline void unpack_sixes(const uint8_t* from, Unit* to, int at) {
    float scale = half_to_float(from + 208);
    const int8_t* factor = (const int8_t*)from + 192;
    for (int part = 0; part < 8; part++) {
        int second = part >> 1 & 1, half = part & 1, upper = part >> 2;
        const uint8_t* two = from + 128 + upper * 32 + half * 16;
        auto more = [&](int high, int i) { return (((widened(two + i) >> (2 * second + 4 * high)) & 3) << 4) - 32; };
        int number = upper * 8 + second * 2 + half, place = at + number * 16;
        unpack_halves<T>(from + upper * 64 + second * 32 + half * 16, more, {scale * factor[number], -0.0f, place},
                         {scale * factor[number + 4], -0.0f, place + 64}, to);
    }
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

// What comes later, on its way while these two blocks are unpacked.
template <int32_t KIND>
inline void fetch(const uint8_t* from) {
    for (int line = 0; line < 2 * bytes_of(KIND); line += 64) __builtin_prefetch(from + FETCHED + line, 0, 3);
}

template <class T, int32_t KIND>
inline void unpack_row(const uint8_t* from, int inputs, Unit* to) {
    int at = 0;
    if constexpr (T::PER_UNIT == 2 && has_two(KIND))
        for (; at + 2 * IN_BLOCK <= inputs; at += 2 * IN_BLOCK, from += 2 * bytes_of(KIND)) {
            fetch<KIND>(from);
            const Two found = two_blocks<KIND>(from);
            store(to + at / 2, found.first), store(to + at / 2 + LANES, found.second);
        }
    for (; at < inputs; at += numbers_of(KIND), from += bytes_of(KIND)) {
        for (int line = 0; line < bytes_of(KIND); line += 64) __builtin_prefetch(from + FETCHED + line, 0, 3);
        if constexpr (SPREADS && T::PER_UNIT == 1 && (KIND == Q4_0 || KIND == Q4_1)) {
            floats_of_fours<KIND, false>(from, to + at);
            continue;
        }
        if constexpr (KIND == Q4_0) unpack_fours<T>(from + 2, 8, half_to_float(from), -0.0f, to, at);
        if constexpr (KIND == Q5_0) unpack_fives<T>(from + 2, from + 6, 16, half_to_float(from), -0.0f, to, at);
        if constexpr (KIND == Q8_0) unpack_bytes<T>(from + 2, half_to_float(from), to, at);
        if constexpr (KIND == Q4_1 || KIND == Q5_1) {
            Pair head = halves_to_floats(from);
            if constexpr (KIND == Q4_1) unpack_fours<T>(from + 4, 0, head.scale, head.least, to, at);
            if constexpr (KIND == Q5_1) unpack_fives<T>(from + 4, from + 8, 0, head.scale, head.least, to, at);
        }
        if constexpr (KIND == Q4_K) unpack_large<T, false>(from, to, at);
        if constexpr (KIND == Q5_K) unpack_large<T, true>(from, to, at);
        if constexpr (KIND == Q6_K) unpack_sixes<T>(from, to, at);
    }
}

// Units of one row of `inputs` numbers, a multiple of numbers_of(kind).
template <class T>
inline void unpack_row(int32_t kind, const uint8_t* from, int inputs, Unit* to) {
    switch (kind) {
        case Q4_0: return unpack_row<T, Q4_0>(from, inputs, to);
        case Q4_1: return unpack_row<T, Q4_1>(from, inputs, to);
        case Q5_0: return unpack_row<T, Q5_0>(from, inputs, to);
        case Q5_1: return unpack_row<T, Q5_1>(from, inputs, to);
        case Q4_K: return unpack_row<T, Q4_K>(from, inputs, to);
        case Q5_K: return unpack_row<T, Q5_K>(from, inputs, to);
        case Q6_K: return unpack_row<T, Q6_K>(from, inputs, to);
        default: return unpack_row<T, Q8_0>(from, inputs, to);
    }
}

// Rows [first, last) of a matrix, unpacked once for all that is multiplied with them. Each thread has two places,
// as gate and up are multiplied side by side; what lies in a place is lost with the next call.
template <class T>
inline Rows unpacked(int32_t kind, const uint8_t* blocks, int inputs, int first, int last, int place) {
    thread_local std::vector<Unit> places[2];
    int units = inputs / T::PER_UNIT;
    size_t bytes = row_bytes(kind, inputs);
    std::vector<Unit>& to = places[place];
    to.resize((size_t)(last - first) * units);
    for (int row = first; row < last; row++)
        unpack_row<T>(kind, blocks + row * bytes, inputs, to.data() + (size_t)(row - first) * units);
    return {to.data(), units, first, true};
}
