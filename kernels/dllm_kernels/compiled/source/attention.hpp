// Attention of the queries of one part of a pass over its row's store, with an online softmax
// (arXiv 1805.02867, 2205.14135) in blocks of keys. Blocks begin at fixed slots and hidden keys weigh
// exactly 0, so a query's result depends on the keys it sees and their slots only.
//
// Keys of a head lie in chunks of 16: [chunk][head_dim / per unit][16] units. Values lie by
// pairs that share a unit: [slot / per unit][head_dim] units. Head sizes are padded to
// multiples of 16 with zeros.
#pragma once

#include <vector>

#include "simd.hpp"

constexpr int CHUNK = 16;
constexpr int BLOCK = 256;
constexpr int QUERIES = 8;

// One part: its rows in the pass, its row's store, and who sees whom inside.
struct Part {
    int32_t row, rows, kept, round;
    int64_t capacity;
    Unit* const* keys;
    Unit* const* values;
    const uint8_t* seen;
};

// A thread's own buffers, for `rows` queries times heads of a group, `size` wide.
struct Scratch {
    std::vector<float> scores, sums, largest, total, head;
    std::vector<Unit> weights, packed;
    std::vector<const Unit*> queries;
    void fit(int rows, int size) {
        scores.resize((size_t)rows * BLOCK);
        weights.resize((size_t)rows * BLOCK);
        sums.resize((size_t)rows * size);
        largest.resize(rows);
        total.resize(rows);
        queries.resize(rows);
        head.resize(size);
        packed.resize(size);
    }
};

// Scores of MR queries with CHUNKS * 16 keys.
template <class T, int MR, int CHUNKS>
inline void score(const Unit* const* queries, const Unit* keys, int units, float scale, float* to) {
    constexpr int VECTORS = CHUNKS * CHUNK / LANES;
    constexpr int IN_CHUNK = CHUNK / LANES;
    Floats sum[MR][VECTORS];
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[m][v] = Floats{};
    for (int u = 0; u < units; u++) {
        Units k[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++)
            k[v] = load<Units>(keys + ((size_t)(v / IN_CHUNK) * units + u) * CHUNK + v % IN_CHUNK * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < MR; m++) {
            Units q = splat(queries[m][u]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[m][v] = T::dot(sum[m][v], q, k[v]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) store(to + m * BLOCK + v * LANES, sum[m][v] * scale);
}

template <class T, int MR>
inline void score_block(const Unit* const* queries, const Unit* keys, int units, int chunks, float scale, float* to) {
    int chunk = 0;
    for (; chunk + 2 <= chunks; chunk += 2)
        score<T, MR, 2>(queries, keys + (size_t)chunk * units * CHUNK, units, scale, to + chunk * CHUNK);
    if (chunk < chunks) score<T, MR, 1>(queries, keys + (size_t)chunk * units * CHUNK, units, scale, to + chunk * CHUNK);
}

// sums[m][16 * WIDE] += weights[m][units] times values [units][size].
template <class T, int MR, int VECTORS>
inline void gather(const Unit* weights, const Unit* values, int units, int size, float* sums) {
    Floats sum[MR][VECTORS];
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[m][v] = load<Floats>(sums + (size_t)m * size + v * LANES);
    for (int u = 0; u < units; u++) {
        Units x[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) x[v] = load<Units>(values + (size_t)u * size + v * LANES);
#pragma GCC unroll 8
        for (int m = 0; m < MR; m++) {
            Units w = splat(weights[(size_t)m * BLOCK + u]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[m][v] = T::dot(sum[m][v], w, x[v]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < MR; m++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) store(sums + (size_t)m * size + v * LANES, sum[m][v]);
}

template <class T, int MR>
inline void gather_block(const Unit* weights, const Unit* values, int units, int size, float* sums) {
    int at = 0;
    for (; at + 4 * LANES <= size; at += 4 * LANES) gather<T, MR, 4>(weights, values + at, units, size, sums + at);
    for (; at < size; at += LANES) gather<T, MR, 1>(weights, values + at, units, size, sums + at);
}

// The softmax of one block: scores become weights, sums so far are rescaled.
template <class T>
inline void soften(float* scores, Unit* weights, int keys, float& largest, float& total, float* sums, int size) {
    Floats top = splat(largest);
    for (int i = 0; i < keys; i += LANES) top = larger(top, load<Floats>(scores + i));
    float now = max_of(top);
    if (now == -INFINITY) {  // nothing seen yet
        std::memset(weights, 0, keys / T::PER_UNIT * sizeof(Unit));
        return;
    }
    if (now != largest) {
        Floats factor = exponential(splat(largest - now));
        total *= factor[0];
        for (int d = 0; d < size; d += LANES) store(sums + d, load<Floats>(sums + d) * factor[0]);
        largest = now;
    }
    Floats sum{};
    for (int i = 0; i < keys; i += LANES) {
        Floats weight = exponential(load<Floats>(scores + i) - now);
        store(scores + i, weight);
        sum += weight;
    }
    total += sum_of(sum);
    set_row<T>(weights, scores, keys);
}

// What a query sees besides the kept prefix; its own part begins at slot `kept`.
inline void hide(float* scores, int first, int keys, const Part& part, int query) {
    const uint8_t* seen = part.seen + (size_t)query * part.rows;
    for (int i = std::max(0, part.kept - first); i < keys; i++) {
        int own = first + i - part.kept;
        if (own >= part.rows || !seen[own]) scores[i] = -INFINITY;
    }
}

// One beyond the last of its own keys that any of these queries sees.
inline int last_seen(const Part& part, int query, int queries) {
    int last = 0;
    for (int q = query; q < query + queries; q++) {
        const uint8_t* seen = part.seen + (size_t)q * part.rows;
        for (int i = part.rows; i > last; i--)
            if (seen[i - 1]) last = i;
    }
    return last;
}

// Queries `query` ... of a part, for the `share` heads of one key head.
// q(row, head) points to units; result(row, head, sums) takes float32 [head_dim].
template <class T, class Query, class Result>
void attend(const Part& part, int layer, int kv_head, int share, int query, int queries, int size, float scale,
            Scratch& scratch, const Query& q, const Result& result) {
    int rows = share * queries, units = size / T::PER_UNIT;
    std::fill_n(scratch.sums.begin(), (size_t)rows * size, 0.0f);
    for (int m = 0; m < rows; m++) {
        scratch.queries[m] = q(part.row + query + m % queries, kv_head * share + m / queries);
        scratch.largest[m] = -INFINITY;
        scratch.total[m] = 0;
    }
    const Unit* keys = part.keys[layer] + (size_t)kv_head * part.capacity * units;
    const Unit* values = part.values[layer] + (size_t)kv_head * part.capacity / T::PER_UNIT * size;
    int end = part.kept + last_seen(part, query, queries);
    for (int first = 0; first < end; first += BLOCK) {
        int chunks = std::min(BLOCK / CHUNK, (end - first + CHUNK - 1) / CHUNK), width = chunks * CHUNK;
        float* scores = scratch.scores.data();
        Unit* weights = scratch.weights.data();
        for (int m = 0; m < rows; m += 6) {
            const Unit* const* some = scratch.queries.data() + m;
            const Unit* from = keys + (size_t)first * units;
            DLLM_BY_ROWS(rows - m, (score_block<T, MR>(some, from, units, chunks, scale, scores + (size_t)m * BLOCK)))
        }
        for (int m = 0; m < rows; m++) {
            float* own = scores + (size_t)m * BLOCK;
            if (first + width > part.kept) hide(own, first, width, part, query + m % queries);
            soften<T>(own, weights + (size_t)m * BLOCK, width, scratch.largest[m], scratch.total[m],
                      scratch.sums.data() + (size_t)m * size, size);
        }
        for (int m = 0; m < rows; m += 6) {
            const Unit* from = values + (size_t)first / T::PER_UNIT * size;
            float* to = scratch.sums.data() + (size_t)m * size;
            const Unit* some = weights + (size_t)m * BLOCK;
            DLLM_BY_ROWS(rows - m, (gather_block<T, MR>(some, from, width / T::PER_UNIT, size, to)))
        }
    }
    for (int m = 0; m < rows; m++) {
        float* sums = scratch.sums.data() + (size_t)m * size;
        for (int d = 0; d < size; d++) sums[d] /= scratch.total[m];
        result(part.row + query + m % queries, kv_head * share + m / queries, sums);
    }
}
