// What Python calls, through ctypes: plain C, no Python or torch headers, so that one build
// serves every version of both. Functions return 0, or 1 where memory ran out.
#include <new>

#include "decoder.hpp"
#include "head.hpp"

#define DLLM_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

template <class Work>
int guarded(const Work& work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

// A linear layer of rows that are quantised first, where its weights are.
template <class T>
struct Prepared {
    Levels levels;
    Product<T> product;

    Prepared(const Unit* x, const Linear& l, int rows, int threads) : product{l, {x, l.inputs / T::PER_UNIT}, &levels} {
        if (!l.levels) return;
        levels.fit(rows, l.inputs);
        pool().run(threads, [&](int thread) {
            quantise_share<T>(product.x, rows, l.inputs, thread, threads, levels);
        });
    }
};

template <class T>
void linear(const Unit* x, const Linear& l, float* to, int rows, int threads) {
    Prepared<T> ready(x, l, rows, threads);
    pool().run(threads, [&](int thread) {
        multiply_share(ready.product, rows, thread, threads, [&](int r, int n, auto value) {
            store(to + (size_t)r * l.outputs + n, value);
        });
    });
}

}  // namespace

// Changes whenever a structure or a function does.
DLLM_EXPORT int dllm_version() { return 1; }

// From now on torch's threads compute; see OpenMP in pool.hpp.
DLLM_EXPORT void dllm_use_openmp(void* parallel, void* thread, void* threads) {
    OpenMP& found = open_mp();
    found.parallel = (decltype(found.parallel))parallel;
    found.thread = (decltype(found.thread))thread;
    found.threads = (decltype(found.threads))threads;
    found.owner = getpid();
}

DLLM_EXPORT void* dllm_workspace() { return new (std::nothrow) Workspace; }

DLLM_EXPORT void dllm_free_workspace(void* space) { delete (Workspace*)space; }

// One pass; `narrow` for bfloat16 weights. Buffers of wide passes are not kept.
DLLM_EXPORT int dllm_forward(const Model* model, const Pass* pass, void* space, int narrow) {
    return guarded([&] {
        Workspace own, &used = pass->rows > 256 ? own : *(Workspace*)space;
        if (narrow)
            Forward<BFloat16>(*model, *pass, used).run();
        else
            Forward<Float32>(*model, *pass, used).run();
    });
}

// Whether int8 weights can be used.
DLLM_EXPORT int dllm_has_int8() { return HAS_INT8; }

// float32 [rows, outputs] of x [rows, inputs].
DLLM_EXPORT int dllm_linear(const Unit* x, const Linear* l, float* to, int rows, int threads, int narrow) {
    return guarded([&] { (narrow ? linear<BFloat16> : linear<Float32>)(x, *l, to, rows, threads); });
}

// Tokens of x [rows, inputs]; see head.hpp.
DLLM_EXPORT int dllm_unmask(const Unit* x, const Linear* l, const Drawing* drawings, const Unmasked* to, int rows,
                            int threads, int narrow) {
    return guarded([&] {
        if (narrow)
            unmask(Prepared<BFloat16>(x, *l, rows, threads).product, rows, threads, drawings, *to);
        else
            unmask(Prepared<Float32>(x, *l, rows, threads).product, rows, threads, drawings, *to);
    });
}
