// What Python calls, through ctypes: plain C, no Python or torch headers, so that one build
// serves every version of both. Functions that compute return one of Outcome.
#include <cstdio>

#include "decoder.hpp"
#include "head.hpp"

#define DLLM_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

enum Outcome { DONE, NO_MEMORY, FAILED };

// What the thread's last call that failed has said.
thread_local char said[200];

// Calls work(threads); on one thread where the system gives no more, which changes no bit.
template <class Work>
int guarded(int threads, const Work& work) noexcept {
    try {
        try {
            work(threads);
        } catch (const NoThreads&) {
            work(1);
        }
        return DONE;
    } catch (const std::bad_alloc&) {
        return NO_MEMORY;
    } catch (const std::length_error&) {  // more than a vector can ever hold
        return NO_MEMORY;
    } catch (const std::exception& error) {
        std::snprintf(said, sizeof said, "%s", error.what());
    } catch (...) {
        std::snprintf(said, sizeof said, "an unknown exception");
    }
    return FAILED;
}

// A linear layer of rows that are quantised first, where its weights are.
template <class T>
struct Prepared {
    Levels levels;
    Product<T> product;

    Prepared(const Unit* x, const Linear& l, int rows, int threads) : product{l, {x, l.inputs / T::PER_UNIT}, &levels} {
        if (!quantises(l)) return;
        levels.fit(l, rows);
        pool().run(threads, [&](int thread) {
            fault.look(thread);
            quantise_share<T>(l, product.x, rows, thread, threads, levels);
        });
    }
};

template <class T>
void linear(const Unit* x, const Linear& l, float* to, int rows, int threads) {
    Prepared<T> ready(x, l, rows, threads);
    pool().run(threads, [&](int thread) {
        fault.look(thread);
        multiply_share(ready.product, rows, thread, threads, [&](int r, int n, auto value) {
            store(to + (size_t)r * l.outputs + n, value);
        });
    });
}

}  // namespace

// Changes whenever a structure or a function does.
DLLM_EXPORT int dllm_version() { return 3; }

// From now on torch's threads compute; see OpenMP in pool.hpp.
DLLM_EXPORT void dllm_use_openmp(void* parallel, void* thread, void* threads) {
    open_mp.parallel = (decltype(open_mp.parallel))parallel;
    open_mp.thread = (decltype(open_mp.thread))thread;
    open_mp.threads = (decltype(open_mp.threads))threads;
    open_mp.owner = getpid();
}

// Why this thread's last call returned FAILED.
DLLM_EXPORT const char* dllm_said() { return said; }

// For tests: in the calls to come, a thread throws once, as for want of memory or not: when it begins
// with a product or meets the others of a pass for the `looks`-th time, from 0 on.
DLLM_EXPORT void dllm_fail(int thread, int looks, int memory) { fault.ask(thread, looks, memory); }

DLLM_EXPORT void* dllm_workspace() { return new (std::nothrow) Workspace; }

DLLM_EXPORT void dllm_free_workspace(void* space) { delete (Workspace*)space; }

// One pass; `narrow` for bfloat16 weights. Buffers of wide passes are not kept.
DLLM_EXPORT int dllm_forward(const Model* model, const Pass* pass, void* space, int narrow) {
    return guarded(pass->threads, [&](int threads) {
        Workspace own, &used = pass->rows > 256 ? own : *(Workspace*)space;
        Pass call = *pass;
        call.threads = threads;
        if (narrow)
            Forward<BFloat16>(*model, call, used).run();
        else
            Forward<Float32>(*model, call, used).run();
    });
}

// Whether int8 weights can be used.
DLLM_EXPORT int dllm_has_int8() { return HAS_INT8; }

// float32 [rows, outputs] of x [rows, inputs].
DLLM_EXPORT int dllm_linear(const Unit* x, const Linear* l, float* to, int rows, int threads, int narrow) {
    return guarded(threads, [&](int threads) { (narrow ? linear<BFloat16> : linear<Float32>)(x, *l, to, rows, threads); });
}

// Tokens of x [rows, inputs]; see head.hpp.
DLLM_EXPORT int dllm_unmask(const Unit* x, const Linear* l, const Drawing* drawings, const Unmasked* to, int rows,
                            int threads, int narrow) {
    return guarded(threads, [&](int threads) {
        if (narrow)
            unmask(Prepared<BFloat16>(x, *l, rows, threads).product, rows, threads, drawings, *to);
        else
            unmask(Prepared<Float32>(x, *l, rows, threads).product, rows, threads, drawings, *to);
    });
}
