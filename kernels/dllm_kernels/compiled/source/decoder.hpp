// The block decoder: a decoder-only transformer over positions of many rows, each on its own
// cached prefix. One call computes a whole pass; residuals, norms and softmax are float32.
#pragma once

#include <chrono>

#include "attention.hpp"
#include "linear.hpp"

struct Layer {
    const float* input_norm;
    const float* post_norm;
    const float* q_norm;
    const float* k_norm;
    Linear qkv, out, gate_up, down;
};

// Embeddings: those of the first `coded` tokens in blocks of a kind, the others' in `plain`.
struct Embedding {
    const Unit* plain;
    const uint8_t* blocks;
    int32_t kind, coded;
};

struct Model {
    int32_t layers, hidden, heads, kv_heads, head_dim, intermediate, rank;
    float eps, low_rank_scale;
    Embedding embedding;
    const float* norm;
    const Layer* layer;
};

struct Pass {
    int32_t rows, parts, rounds, threads;
    const int64_t* tokens;
    const int64_t* positions;
    const float* cosines;
    const float* sines;
    const uint8_t* noisy;
    const Part* part;
    Unit* hidden;
    double* seconds;  // linear, attention, other; or absent
};

// Float32 and unit buffers of a pass; kept from one pass to the next. All are made before the threads begin.
struct Workspace {
    std::vector<float> x, qkv;
    std::vector<Unit> normed, query, seen, inner, low;
    Levels levels;
    std::vector<Scratch> scratch;
};

template <class T>
class Forward {
  public:
    Forward(const Model& model, const Pass& pass, Workspace& space)
        : m_(model), p_(pass), s_(space), size_((model.head_dim + 15) / 16 * 16) {
        int rows = p_.rows, wide = m_.heads + 2 * m_.kv_heads;
        for (int i = 0; i < p_.rows; i++) any_noisy_ |= p_.noisy && p_.noisy[i];
        s_.x.resize((size_t)rows * m_.hidden);
        s_.qkv.resize((size_t)rows * wide * m_.head_dim);
        s_.normed.resize((size_t)rows * units(m_.hidden));
        s_.query.assign((size_t)rows * m_.heads * units(size_), 0);
        s_.seen.resize((size_t)rows * units(m_.heads * m_.head_dim));
        s_.inner.resize((size_t)rows * units(m_.intermediate));
        s_.low.resize((size_t)rows * units(m_.rank));
        s_.scratch.resize(p_.threads);
        for (Scratch& own : s_.scratch) own.fit(m_.heads / m_.kv_heads * QUERIES, size_);
        for (int i = 0; i < m_.layers; i++) {
            const Layer& layer = m_.layer[i];
            for (const Linear* l : {&layer.qkv, &layer.out, &layer.gate_up, &layer.down}) s_.levels.fit(*l, rows);
        }
    }

    void run() {
        pool().run(p_.threads, [this](int thread) {
            try {
                work(thread);
            } catch (...) {
                barrier_.abandon();
                throw;
            }
        });
    }

  private:
    enum Kind { LINEAR, ATTENTION, OTHER };

    static int units(int count) { return count / T::PER_UNIT; }

    // All threads meet; the first keeps the time.
    void meet(int thread, Kind kind) {
        fault.look(thread);
        barrier_.wait(p_.threads);
        if (!p_.seconds || thread) return;
        auto now = std::chrono::steady_clock::now();
        p_.seconds[kind] += std::chrono::duration<double>(now - since_).count();
        since_ = now;
    }

    void work(int thread) {
        if (!thread) since_ = std::chrono::steady_clock::now();
        Share rows(p_.rows, 1, thread, p_.threads);
        for (int r = rows.begin; r < rows.end; r++)
            embed(p_.tokens[r], s_.normed.data() + (size_t)r * units(m_.hidden), x(r));
        meet(thread, OTHER);
        for (int layer = 0; layer < m_.layers; layer++) {
            attention(layer, thread);
            mlp(m_.layer[layer], thread);
        }
        for (int r = rows.begin; r < rows.end; r++) norm(x(r), m_.norm, p_.hidden + (size_t)r * units(m_.hidden));
        meet(thread, OTHER);
    }

    // `room` is for a row of units.
    void embed(int64_t token, Unit* room, float* to) {
        const Embedding& e = m_.embedding;
        if (token < e.coded)
            unpack_row<T>(e.kind, e.blocks + token * row_bytes(e.kind, m_.hidden), m_.hidden, room);
        get_row<T>(to, token < e.coded ? room : e.plain + (token - e.coded) * units(m_.hidden), m_.hidden);
    }

    template <class V>
    void add(int row, int out, V value) {
        float* to = x(row) + out;
        store(to, load<V>(to) + value);
    }

    float* x(int row) { return s_.x.data() + (size_t)row * m_.hidden; }

    void norm(const float* from, const float* weight, Unit* to) {
        float scale = inverse_rms(from, m_.hidden);
        int i = 0;
        for (; i + LANES <= m_.hidden; i += LANES)
            T::set_vector(to, i, load<Floats>(from + i) * scale * load<Floats>(weight + i));
        for (; i < m_.hidden; i++) T::set(to, i, from[i] * scale * weight[i]);
    }

    float inverse_rms(const float* from, int count) {
        Floats sum{};
        int i = 0;
        for (; i + LANES <= count; i += LANES) {
            Floats v = load<Floats>(from + i);
            sum += v * v;
        }
        float rest = 0;
        for (; i < count; i++) rest += from[i] * from[i];
        return 1.0f / std::sqrt((sum_of(sum) + rest) / count + m_.eps);
    }

    void norms(const float* weight, int thread) {
        Share rows(p_.rows, 1, thread, p_.threads);
        for (int r = rows.begin; r < rows.end; r++)
            norm(x(r), weight, s_.normed.data() + (size_t)r * units(m_.hidden));
        meet(thread, OTHER);
    }

    // Hands out a linear layer of x [rows][inputs]; see hand_out.
    template <class To>
    void linear(const Linear& l, const Unit* from, int thread, const To& to) {
        Product<T> product = ready(l, from, thread);
        multiply_share(product, p_.rows, thread, p_.threads, to);
        meet(thread, LINEAR);
    }

    // With quantised rows where the weights are, and the low-rank part where the pass has noisy rows.
    Product<T> ready(const Linear& l, const Unit* from, int thread) {
        Product<T> product{l, {from, units(l.inputs)}};
        if (quantises(l)) {
            product.levels = &s_.levels;
            quantise_share<T>(l, product.x, p_.rows, thread, p_.threads, s_.levels);
            meet(thread, OTHER);
        }
        if (any_noisy_ && l.down) product.t = low(l, product.x, thread), product.noisy = p_.noisy;
        return product;
    }

    // What the low-rank pair makes of the rows: zero for clean ones.
    Rows low(const Linear& l, Rows x, int thread) {
        Share outputs(m_.rank, 8, thread, p_.threads);
        each_tile(p_.rows, outputs.begin, outputs.end, no_panel, [&](int row, int rows, int out, int count) {
            float found[TILE];
            multiply<T>({x, {l.down, x.units}, {}, {}}, row, rows, out, count, found);
            for (int r = 0; r < rows; r++)
                for (int n = 0; n < count; n++) {
                    float t = p_.noisy[row + r] ? found[r * outputs_of(rows) + n] * m_.low_rank_scale : 0.0f;
                    T::set(s_.low.data() + (size_t)(row + r) * units(m_.rank), out + n, t);
                }
        });
        meet(thread, LINEAR);
        return {s_.low.data(), units(m_.rank)};
    }

    void attention(int index, int thread) {
        const Layer& layer = m_.layer[index];
        int wide = (m_.heads + 2 * m_.kv_heads) * m_.head_dim;
        norms(layer.input_norm, thread);
        linear(layer.qkv, s_.normed.data(), thread,
               [&](int row, int out, auto value) { store(s_.qkv.data() + (size_t)row * wide + out, value); });
        rotate_queries(layer, thread);
        // A row's first part comes last, so that its keys stay.
        for (int round = p_.rounds - 1; round >= 0; round--) {
            write(index, layer, round, thread);
            meet(thread, ATTENTION);
            look(index, round, thread);
            meet(thread, ATTENTION);
        }
        linear(layer.out, s_.seen.data(), thread, [&](int row, int out, auto value) { add(row, out, value); });
    }

    const float* head_of(int row, int head) {
        return s_.qkv.data() + ((size_t)row * (m_.heads + 2 * m_.kv_heads) + head) * m_.head_dim;
    }

    // Rotary embedding (arXiv 2104.09864), after the norm of the head where there is one.
    void rotated(int row, const float* from, const float* weight, float* to) {
        int half = m_.head_dim / 2;
        const float* c = p_.cosines + p_.positions[row] * half;
        const float* s = p_.sines + p_.positions[row] * half;
        float scale = weight ? inverse_rms(from, m_.head_dim) : 1.0f;
        for (int i = 0; i < half; i++) {
            float a = from[i], b = from[i + half];
            if (weight) a *= scale * weight[i], b *= scale * weight[i + half];
            to[i] = a * c[i] - b * s[i];
            to[i + half] = b * c[i] + a * s[i];
        }
    }

    void rotate_queries(const Layer& layer, int thread) {
        std::vector<float>& head = s_.scratch[thread].head;
        Share rows(p_.rows, 1, thread, p_.threads);
        for (int r = rows.begin; r < rows.end; r++)
            for (int h = 0; h < m_.heads; h++) {
                rotated(r, head_of(r, h), layer.q_norm, head.data());
                set_row<T>(query(r, h), head.data(), m_.head_dim);
            }
    }

    Unit* query(int row, int head) { return s_.query.data() + ((size_t)row * m_.heads + head) * units(size_); }

    // Keys and values of a round's parts, behind what their stores keep.
    void write(int index, const Layer& layer, int round, int thread) {
        std::vector<float>& head = s_.scratch[thread].head;
        std::vector<Unit>& packed = s_.scratch[thread].packed;
        for (int i = 0; i < p_.parts; i++) {
            const Part& part = p_.part[i];
            if (part.round != round) continue;
            // Whole chunks of slots, so that no two threads write to one unit.
            int first = part.kept / CHUNK, last = (part.kept + part.rows + CHUNK - 1) / CHUNK;
            Share chunks(last - first, 1, thread, p_.threads);
            int begin = std::max(part.kept, (first + chunks.begin) * CHUNK);
            int end = std::min(part.kept + part.rows, (first + chunks.end) * CHUNK);
            for (int slot = begin; slot < end; slot++)
                for (int h = 0; h < m_.kv_heads; h++) {
                    int row = part.row + slot - part.kept;
                    rotated(row, head_of(row, m_.heads + h), layer.k_norm, head.data());
                    put_key(part, index, h, slot, head.data(), packed.data());
                    put_value(part, index, h, slot, head_of(row, m_.heads + m_.kv_heads + h));
                }
        }
    }

    void put_key(const Part& part, int index, int head, int slot, const float* key, Unit* packed) {
        int count = units(size_);
        std::fill_n(packed, count, 0);
        set_row<T>(packed, key, m_.head_dim);
        Unit* chunk = part.keys[index] + ((size_t)head * part.capacity + slot / CHUNK * CHUNK) * count;
        for (int u = 0; u < count; u++) chunk[u * CHUNK + slot % CHUNK] = packed[u];
    }

    void put_value(const Part& part, int index, int head, int slot, const float* value) {
        constexpr int PER = T::PER_UNIT;
        Unit* line = part.values[index] + ((size_t)head * part.capacity + slot / PER * PER) / PER * size_;
        for (int d = 0; d < m_.head_dim; d++) T::set(line, d * PER + slot % PER, value[d]);
    }

    void look(int index, int round, int thread) {
        float scale = 1.0f / std::sqrt((float)m_.head_dim);
        int share = m_.heads / m_.kv_heads, item = 0;
        for (int i = 0; i < p_.parts; i++) {
            const Part& part = p_.part[i];
            if (part.round != round) continue;
            for (int first = 0; first < part.rows; first += QUERIES)
                for (int h = 0; h < m_.kv_heads; h++)
                    if (item++ % p_.threads == thread)
                        attend<T>(
                            part, index, h, share, first, std::min(QUERIES, part.rows - first), size_, scale,
                            s_.scratch[thread], [&](int row, int head) { return query(row, head); },
                            [&](int row, int head, const float* sums) {
                                Unit* to = s_.seen.data() + (size_t)row * units(m_.heads * m_.head_dim);
                                set_row<T>(to + units(head * m_.head_dim), sums, m_.head_dim);
                            });
        }
    }

    void mlp(const Layer& layer, int thread) {
        norms(layer.post_norm, thread);
        gated(layer.gate_up, thread);
        linear(layer.down, s_.inner.data(), thread, [&](int row, int out, auto value) { add(row, out, value); });
    }

    // silu(gate) * up: the two halves of one product, tile beside tile.
    void gated(const Linear& l, int thread) {
        Product<T> gates = ready(l, s_.normed.data(), thread), ups = gates;
        ups.place = 1;
        int inner = m_.intermediate;
        Share outputs(inner, STEP, thread, p_.threads);
        if (l.coded)
            for (int out = outputs.begin; out < outputs.end; out += PANEL) {
                int some = std::min(PANEL, outputs.end - out);
                const PanelFloats* gate = gates.coded(0, p_.rows, out, some);
                gated_panel(gate, ups.coded(0, p_.rows, inner + out, some), out, some);
            }
        else
            gated_tiles(gates, ups, outputs);
        meet(thread, LINEAR);
    }

    static Floats gated(Floats gate, Floats up) { return gate / (1.0f + exponential(-gate)) * up; }

    Unit* inner_row(int row) { return s_.inner.data() + (size_t)row * units(m_.intermediate); }

    void gated_panel(const PanelFloats* gate, const PanelFloats* up, int out, int outputs) {
        for (int r = 0; r < p_.rows; r++)
            for (int at = 0; at < outputs; at += LANES) {
                Floats found = gated(load<Floats>((const float*)&gate[r] + at), load<Floats>((const float*)&up[r] + at));
                if (at + LANES <= outputs)
                    T::set_vector(inner_row(r), out + at, found);
                else
                    for (int n = 0; at + n < outputs; n++) T::set(inner_row(r), out + at + n, found[n]);
            }
    }

    void gated_tiles(Product<T> gates, Product<T> ups, Share outputs) {
        int wide = m_.intermediate;
        gates.begin(0, p_.rows), ups.begin(0, p_.rows);
        auto open = [&](int first, int last) { gates.open(first, last), ups.open(wide + first, wide + last); };
        each_tile(p_.rows, outputs.begin, outputs.end, open, [&](int row, int rows, int out, int count) {
            float gate[TILE], up[TILE];
            if (count < outputs_of(rows)) clear(gate), clear(up);
            gates(row, rows, out, count, gate);
            ups(row, rows, wide + out, count, up);
            for (int i = 0; i < rows * outputs_of(rows); i += LANES)
                store(gate + i, gated(load<Floats>(gate + i), load<Floats>(up + i)));
            for (int r = 0; r < rows; r++)
                for (int n = 0; n < count; n++) T::set(inner_row(row + r), out + n, gate[r * outputs_of(rows) + n]);
        });
    }

    const Model& m_;
    const Pass& p_;
    Workspace& s_;
    int size_;
    bool any_noisy_ = false;
    Barrier barrier_;
    std::chrono::steady_clock::time_point since_;
};
