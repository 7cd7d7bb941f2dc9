// Matrices as GGUF files hold them: rows of blocks of 32 small numbers with a scale, and in some a least value, in
// float16; or of 256, with a small factor of its own for every 32 or 16 of them. Format: ggml-org/ggml ggml-common.h
// (block_q4_0 to block_q6_K).
#pragma once

#include "simd.hpp"

// ggml's numbers of the types.
enum Kind : int32_t { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

// Numbers of a small block, and of a large one.
constexpr int IN_BLOCK = 32;
constexpr int IN_LARGE = 256;

constexpr int numbers_of(int32_t kind) { return kind >= Q4_K ? IN_LARGE : IN_BLOCK; }

constexpr int bytes_of(int32_t kind) {
    switch (kind) {
        case Q4_0: return 18;
        case Q4_1: return 20;
        case Q5_0: return 22;
        case Q5_1: return 24;
        case Q8_0: return 34;
        case Q4_K: return 144;
        case Q5_K: return 176;
        default: return 210;
    }
}

// Bytes of a row.
constexpr size_t row_bytes(int32_t kind, int inputs) { return (size_t)(inputs / numbers_of(kind)) * bytes_of(kind); }

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
