// The unmasking head: from hidden states to the drawn token and how sure the model is of it,
// block of the vocabulary by block (online softmax, arXiv 1805.02867); logits [N, V] never exist.
// Blocks are of one size and joined in order, so that neither rows nor threads change a bit.
#pragma once

#include "linear.hpp"

// Ids of one block.
constexpr int IDS = 1024;

// What a block, or all blocks so far, say about one row.
struct Seen {
    float best = -INFINITY, second = -INFINITY;  // largest logits
    float mass = 0, moment = 0;                  // sums of e^(x - best) and of (x - best) e^(x - best)
    double drawn = -INFINITY;                    // largest of logit / temperature + noise
    float logit = 0;                             // of the drawn token
    int64_t token = 0;
    double heat = 0;                             // of a block: sum of e^((x - best) / temperature)

    void join(const Seen& next) {
        if (next.drawn > drawn) drawn = next.drawn, logit = next.logit, token = next.token;
        second = std::max(std::min(best, next.best), std::max(second, next.second));
        if (next.best == -INFINITY) return;
        float top = std::max(best, next.best);
        shift(top);
        Seen other = next;
        other.shift(top);
        mass += other.mass;
        moment += other.moment;
    }

  private:
    void shift(float top) {
        if (best != -INFINITY && best != top) {
            float factor = exponential(splat(best - top))[0];
            moment = (moment + (best - top) * mass) * factor;
            mass *= factor;
        }
        best = top;
    }
};

// How a row is drawn: with noise for every id, by one number in (0, 1), or greedily where there is neither.
struct Drawing {
    const double* noise;
    double temperature;
    double uniform;

    bool inverts() const { return uniform > 0; }
    double weight(float logit, float best) const { return std::exp(((double)logit - best) / temperature); }
};

// Looks at `count` logits of ids `first` ...; room for whole vectors behind them.
inline Seen look_at(float* logits, int first, int count, const Drawing& drawing) {
    Seen seen;
    for (int i = count; i % LANES; i++) logits[i] = -INFINITY;
    Floats top = splat(-INFINITY);
    for (int i = 0; i < count; i += LANES) top = larger(top, load<Floats>(logits + i));
    seen.best = max_of(top);
    int place = 0;
    while (place + 1 < count && logits[place] != seen.best) place++;
    // The largest of the others: the best one is hidden for a moment.
    logits[place] = -INFINITY;
    top = splat(-INFINITY);
    for (int i = 0; i < count; i += LANES) top = larger(top, load<Floats>(logits + i));
    seen.second = max_of(top);
    logits[place] = seen.best;
    if (seen.best != -INFINITY) {
        Floats mass{}, moment{};
        for (int i = 0; i < count; i += LANES) {
            Floats x = load<Floats>(logits + i) - seen.best, lowest = splat(-1e4f);
            x = x < lowest ? lowest : x;  // nothing times minus infinity is no number
            Floats e = exponential(x);
            mass += e;
            moment += e * x;
        }
        seen.mass = sum_of(mass), seen.moment = sum_of(moment);
    }
    if (drawing.inverts() && seen.best != -INFINITY)
        for (int i = 0; i < count; i++) seen.heat += drawing.weight(logits[i], seen.best);
    if (!drawing.noise) {
        seen.drawn = seen.best, seen.logit = seen.best, seen.token = first + place;
        return seen;
    }
    for (int i = 0; i < count; i++) {
        double value = (double)logits[i] / drawing.temperature + drawing.noise[first + i];
        if (value > seen.drawn) seen.drawn = value, seen.logit = logits[i], seen.token = first + i;
    }
    return seen;
}

// float32 [rows] probability at temperature 1, entropy in nats, lead of the largest probability
// over the second; int64 [rows] tokens.
struct Unmasked {
    int64_t* token;
    float* probability;
    float* entropy;
    float* margin;

    void put(int row, const Seen& seen) const {
        float log_mass = std::log(seen.mass);
        token[row] = seen.token;
        probability[row] = std::exp(seen.logit - seen.best) / seen.mass;
        entropy[row] = std::max(0.0f, log_mass - seen.moment / seen.mass);
        margin[row] = (1.0f - std::exp(seen.second - seen.best)) / seen.mass;
    }
};

// A draw nearer to a border between two ids than this share of the whole mass is left to the caller,
// who makes it in one go: sums in parts differ in their last digits.
constexpr double CLOSE = 1e-10;
constexpr int64_t UNSURE = -1;

// Draws by the inverse distribution function: the block first, from the masses of all, then the id in it.
// `logits_of(block, to)` gives a block's logits again. Sets `all`, what all blocks say, to the drawn token.
template <class LogitsOf>
void invert(Seen& all, const Seen* seen, int rows, int vocabulary, const Drawing& drawing, const LogitsOf& logits_of) {
    int blocks = (vocabulary + IDS - 1) / IDS, block = 0;
    double whole = 0, reached = 0;
    auto mass = [&](int number) {
        const Seen& own = seen[(size_t)number * rows];
        return own.heat == 0 ? 0 : own.heat * drawing.weight(own.best, all.best);
    };
    for (int number = 0; number < blocks; number++) whole += mass(number);
    double target = drawing.uniform * whole, close = CLOSE * whole;
    for (; block + 1 < blocks && reached + mass(block) < target; block++) reached += mass(block);
    float logits[IDS];
    logits_of(block, logits);
    int first = block * IDS, count = std::min(IDS, vocabulary - first);
    all.token = UNSURE;
    for (int i = 0; i < count; i++) {
        double before = reached;
        reached += drawing.weight(logits[i], all.best);
        if (reached < target) continue;
        if (target - before > close && reached - target > close) all.token = first + i, all.logit = logits[i];
        return;
    }
}

template <class T>
void unmask(const Product<T>& product, int rows, int threads, const Drawing* drawings, const Unmasked& to) {
    int vocabulary = product.l.outputs, blocks = (vocabulary + IDS - 1) / IDS;
    std::vector<Seen> seen((size_t)blocks * rows);
    std::vector<float> room((size_t)threads * rows * IDS);
    pool().run(threads, [&](int thread) {
        fault.look(thread);
        float* logits = room.data() + (size_t)thread * rows * IDS;
        Share own(blocks, 1, thread, threads);
        for (int block = own.begin; block < own.end; block++) {
            int first = block * IDS, last = std::min(first + IDS, vocabulary);
            multiply_outputs(product, 0, rows, first, last,
                             [&](int r, int n, auto value) { store(logits + (size_t)r * IDS + n - first, value); });
            for (int r = 0; r < rows; r++)
                seen[(size_t)block * rows + r] = look_at(logits + (size_t)r * IDS, first, last - first, drawings[r]);
        }
    });
    pool().run(threads, [&](int thread) {
        Share own(rows, 1, thread, threads);
        for (int r = own.begin; r < own.end; r++) {
            Seen all;
            for (int block = 0; block < blocks; block++) all.join(seen[(size_t)block * rows + r]);
            if (drawings[r].inverts())
                invert(all, seen.data() + r, rows, vocabulary, drawings[r], [&](int block, float* logits) {
                    int first = block * IDS, last = std::min(first + IDS, vocabulary);
                    multiply_outputs(product, r, 1, first, last,
                                     [&](int, int n, auto value) { store(logits + n - first, value); });
                });
            to.put(r, all);
        }
    });
}
