// Vectors of 32-bit units. A unit is what a product multiplies at once in one lane: one
// float32, two bfloat16 neighbours, or four int8 ones. All kernels are written in units.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

// Whether bfloat16 is multiplied as float32, see spread.hpp.
#if defined(__AVX2__) && !defined(__AVX512F__)
constexpr bool SPREADS = true;
#else
constexpr bool SPREADS = false;
#endif

using Unit = uint32_t;
typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef uint32_t Units __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));

template <class V, class S>
inline V load(const S* from) {
    V found;
    std::memcpy(&found, from, sizeof found);
    return found;
}

typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef int8_t SignedBytes __attribute__((vector_size(LANES)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

template <class V, class S>
inline void store(S* to, V value) {
    std::memcpy(to, &value, sizeof value);
}

// LANES bytes as whole numbers. Written out, because GCC 12 converts bytes one by one.
inline Ints widened(const uint8_t* from) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtepu8_epi32(load<__m128i>(from));
#elif defined(__AVX2__)
    return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
    return __builtin_convertvector(load<Bytes>(from), Ints);
#endif
}

inline Ints widened(const int8_t* from) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtepi8_epi32(load<__m128i>(from));
#elif defined(__AVX2__)
    return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
#else
    return __builtin_convertvector(load<SignedBytes>(from), Ints);
#endif
}

inline Units splat(Unit x) {
#if defined(__AVX512F__)
    return (Units)_mm512_set1_epi32((int)x);
#else
    return Units{} + x;
#endif
}

inline Floats splat(float x) {
    Unit bits;
    std::memcpy(&bits, &x, 4);
    return (Floats)splat(bits);
}

// The first `count` units, then zeros.
inline Units load_part(const Unit* from, int count) {
    Units v{};
    std::memcpy(&v, from, count * sizeof(Unit));
    return v;
}

inline float bits_to_float(Unit bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline Unit float_to_bits(float x) {
    Unit bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

// To nearest, ties to even.
inline uint16_t to_bfloat16(float x) {
    Unit bits = float_to_bits(x);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

// The same of every lane, with zeros behind.
inline Units rounded(Floats x) {
    Units bits = (Units)x;
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
}

// The same of finite numbers below 2^111, in three operations (Dekker 1971, doi 10.1007/BF01397083: splitting a number);
// that ties go to even numbers, too, was tried for every mantissa.
inline Floats split(Floats x) {
    Floats scaled = x * 65537.0f;
    // The compiler is not to make one operation of this product and the next difference.
#if defined(__x86_64__)
    asm("" : "+x"(scaled));
    return scaled - (scaled - x);
#elif defined(__aarch64__)
    asm("" : "+w"(scaled));
    return scaled - (scaled - x);
#else
    return (Floats)rounded(x);
#endif
}

// What a numeric type means by its units.
struct Float32 {
    static constexpr int PER_UNIT = 1;
    static Floats dot(Floats sum, Units a, Units b) { return sum + (Floats)a * (Floats)b; }
    static float get(const Unit* row, int i) { return bits_to_float(row[i]); }
    static void set(Unit* row, int i, float x) { row[i] = float_to_bits(x); }
    static Floats get_vector(const Unit* row, int i) { return load<Floats>(row + i); }
    static void set_vector(Unit* row, int i, Floats x) { store(row + i, x); }
};

struct BFloat16 {
    static constexpr int PER_UNIT = 2;
    static Floats dot(Floats sum, Units a, Units b) {
#if defined(__AVX512BF16__)
        // Written out, because GCC 12 copies sums around the intrinsic and spills them.
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
#else
        sum += (Floats)(a << 16) * (Floats)(b << 16);
        return sum + (Floats)(a & 0xffff0000u) * (Floats)(b & 0xffff0000u);
#endif
    }
    static float get(const Unit* row, int i) {
        uint16_t half;
        std::memcpy(&half, (const uint16_t*)row + i, 2);
        return bits_to_float((Unit)half << 16);
    }
    static void set(Unit* row, int i, float x) {
        uint16_t half = to_bfloat16(x);
        std::memcpy((uint16_t*)row + i, &half, 2);
    }
    static Floats get_vector(const Unit* row, int i) {
        return (Floats)(__builtin_convertvector(load<Halves>((const uint16_t*)row + i), Units) << 16);
    }
    static void set_vector(Unit* row, int i, Floats x) {
        store((uint16_t*)row + i, __builtin_convertvector(rounded(x) >> 16, Halves));
    }
};

template <class T>
inline void set_row(Unit* to, const float* from, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) T::set_vector(to, i, load<Floats>(from + i));
    for (; i < count; i++) T::set(to, i, from[i]);
}

template <class T>
inline void get_row(float* to, const Unit* from, int count) {
    int i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, T::get_vector(from, i));
    for (; i < count; i++) to[i] = T::get(from, i);
}

inline float sum_of(Floats v) {
    float halves[LANES];
    store(halves, v);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++) halves[i] += halves[i + width];
    return halves[0];
}

inline float max_of(Floats v) {
    float found = v[0];
    for (int i = 1; i < LANES; i++) found = v[i] > found ? v[i] : found;
    return found;
}

inline Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return a > b ? a : b;
#endif
}

// e^x for x <= 0 or moderate x, within 2 units in the last place; 0 below -87.
// Range reduction by multiples of ln 2 in two parts and a minimax polynomial (Cephes).
inline Floats exponential(Floats x) {
    const Floats low = splat(-87.0f), high = splat(88.0f);
    Ints tiny = x < low;
    x = x < low ? low : x;
    x = x > high ? high : x;
    Floats shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23 rounds to a whole number
    Floats whole = shifted - 12582912.0f;
    Floats r = x - whole * 0.693359375f;
    r = r - whole * -2.12194440e-4f;
    Floats p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints power = (((Ints)shifted - (Ints)splat(12582912.0f)) + 127) << 23;
    Floats found = p * (Floats)power;
    return (Floats)((Ints)found & ~tiny);
}

#if defined(__AVX512F__)
struct AddFloats {
    static __m512i add(__m512i a, __m512i b) {
        return (__m512i)_mm512_add_ps((__m512)a, (__m512)b);
    }
};
struct AddInts {
    static __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
};

// The sums of the lanes of eight vectors. Each sum is taken in the same order, wherever it stands.
template <class Add>
inline __m256i sums_of_eight(const __m512i* v) {
    __m512i pair[4], four[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        pair[i] = Add::add(_mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        four[i] = Add::add(_mm512_unpacklo_epi64(pair[2 * i], pair[2 * i + 1]),
                           _mm512_unpackhi_epi64(pair[2 * i], pair[2 * i + 1]));
    __m512i eight = Add::add(_mm512_shuffle_i64x2(four[0], four[1], 0x88), _mm512_shuffle_i64x2(four[0], four[1], 0xdd));
    __m512i done = Add::add(_mm512_shuffle_i64x2(eight, eight, 0x08), _mm512_shuffle_i64x2(eight, eight, 0x0d));
    return _mm512_castsi512_si256(done);
}
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
// The sums of the lanes of eight vectors, each in the order of sum_of.
inline Floats sums_of_eight(const Floats* v) {
    __m256 half[4], two[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        half[i] = _mm256_permute2f128_ps(v[i], v[i + 4], 0x20) + _mm256_permute2f128_ps(v[i], v[i + 4], 0x31);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        __m256d a = (__m256d)half[2 * i], b = (__m256d)half[2 * i + 1];
        two[i] = (__m256)_mm256_unpacklo_pd(a, b) + (__m256)_mm256_unpackhi_pd(a, b);
    }
    return _mm256_shuffle_ps(two[0], two[1], 0x88) + _mm256_shuffle_ps(two[0], two[1], 0xdd);
}
#endif

// Sums of the lanes of COUNT vectors; `to` has room for the next multiple of eight.
template <int COUNT>
inline void sums(const Floats* v, float* to) {
#if defined(__AVX512F__)
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; i += 8) {
        __m512i part[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) part[j] = i + j < COUNT ? (__m512i)v[i + j] : _mm512_setzero_si512();
        _mm256_storeu_si256((__m256i*)(to + i), sums_of_eight<AddFloats>(part));
    }
#elif defined(__AVX2__)
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; i += 8) {
        Floats part[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) part[j] = i + j < COUNT ? v[i + j] : Floats{};
        store(to + i, sums_of_eight(part));
    }
#else
    for (int i = 0; i < COUNT; i++) to[i] = sum_of(v[i]);
#endif
}

// Calls with a number of rows, at most 6, that the compiler knows: MR.
#define DLLM_BY_ROWS(ROWS, CALL) \
    switch (ROWS) {              \
        case 1: { constexpr int MR = 1; CALL; break; } \
        case 2: { constexpr int MR = 2; CALL; break; } \
        case 3: { constexpr int MR = 3; CALL; break; } \
        case 4: { constexpr int MR = 4; CALL; break; } \
        case 5: { constexpr int MR = 5; CALL; break; } \
        default: { constexpr int MR = 6; CALL; break; } \
    }
