// Threads that stay. A forward is one call over all threads with barriers inside, so that
// a layer costs no thread start and no trip through Python.
#pragma once

#include <mutex>
#include <system_error>
#include <thread>

#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "failure.hpp"

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins for some microseconds; a thread that has lost its processor is then slept for.
inline void await_change(const std::atomic<int>& value, int seen) {
    for (int spins = 0; spins < 2000; spins++) {
        if (value.load(std::memory_order_acquire) != seen) return;
        relax();
    }
    value.wait(seen, std::memory_order_acquire);
}

class Barrier {
  public:
    void wait(int threads) {
        if (threads == 1) return;
        int seen = generation_.load(std::memory_order_acquire);
        leave_abandoned();
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(seen + 1, std::memory_order_release);
            generation_.notify_all();
            return;
        }
        await_change(generation_, seen);
        leave_abandoned();
    }

    // By a thread that fails: nobody waits for it, here or at the next meeting.
    void abandon() {
        abandoned_.store(true, std::memory_order_release);
        generation_.fetch_add(1, std::memory_order_acq_rel);
        generation_.notify_all();
    }

  private:
    void leave_abandoned() const {
        if (abandoned_.load(std::memory_order_acquire)) throw Abandoned{};
    }

    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> generation_{0};
    std::atomic<bool> abandoned_{false};
};

// The OpenMP library that torch computes with, found at run time (libgomp's own interface, which
// clang's library has, too). Threads of a second pool would share the processors with torch's,
// which go on spinning for milliseconds after each of its operations.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
    pid_t owner = 0;

    // False if it did not give as many threads: then nothing has been done.
    template <class Work>
    bool run(int wanted, const Work& work) const {
        if (!parallel || owner != getpid()) return false;  // its threads do not survive a fork
        struct Call {
            const OpenMP& library;
            const Work& work;
            int wanted;
            std::atomic<bool> fewer{false};
        } call{*this, work, wanted};
        auto enter = [](void* what) {
            Call& own = *static_cast<Call*>(what);
            if (own.library.threads() == own.wanted)
                own.work(own.library.thread());
            else
                own.fewer = true;
        };
        parallel(enter, &call, wanted, 0);
        return !call.fewer;
    }
};

inline OpenMP open_mp;

class Pool {
  public:
    // Runs work(thread) for thread = 0 ... threads - 1, the first on the caller's thread. What one of
    // them throws is thrown here when all are done, and the pool serves the next call.
    template <class Work>
    void run(int threads, const Work& work) {
        Failure failure;
        auto guarded = [&](int thread) { failure.guard(work, thread); };
        if (threads <= 1)
            guarded(0);
        else if (!open_mp.run(threads, guarded))
            run_own(threads, guarded);
        failure.rethrow();
    }

    bool survived() const { return owner_ == getpid(); }

  private:
    template <class Work>
    void run_own(int threads, const Work& work) {
        std::lock_guard<std::mutex> turn(turn_);
        while (workers_ < threads - 1) start(workers_ + 1);
        call_ = [](const void* what, int thread) { (*static_cast<const Work*>(what))(thread); };
        work_ = &work;
        threads_ = threads;
        left_.store(workers_, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
        work(0);
        for (int left; (left = left_.load(std::memory_order_acquire));) await_change(left_, left);
    }

    void start(int index) {
        int seen = generation_.load();
        try {
            std::thread([this, index, seen] { serve(index, seen); }).detach();
        } catch (const std::system_error&) {
            throw NoThreads{};
        }
        workers_ = index;
    }

    void serve(int index, int seen) {
        for (;;) {
            await_change(generation_, seen);
            seen = generation_.load(std::memory_order_acquire);
            if (index < threads_) call_(work_, index);
            if (left_.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
        }
    }

    std::mutex turn_;
    int workers_ = 0;
    const pid_t owner_ = getpid();
    void (*call_)(const void*, int) = nullptr;
    const void* work_ = nullptr;
    int threads_ = 0;
    alignas(64) std::atomic<int> generation_{0};
    alignas(64) std::atomic<int> left_{0};
};

// Never destroyed: its threads may outlive main.
inline std::atomic<Pool*> made_pool{new Pool};

// Neither threads nor whoever holds the lock survive a fork: the child makes a pool of its own.
inline Pool& pool() {
    Pool* found = made_pool.load(std::memory_order_acquire);
    if (found->survived()) return *found;
    Pool* own = new Pool;
    if (made_pool.compare_exchange_strong(found, own)) return *own;
    delete own;
    return *found;
}

// This thread's share of 0 ... total - 1, in whole `step`s.
struct Share {
    int begin, end;
    Share(int total, int step, int thread, int threads) {
        int steps = (total + step - 1) / step;
        begin = (int)((int64_t)steps * thread / threads) * step;
        end = (int)((int64_t)steps * (thread + 1) / threads) * step;
        if (end > total) end = total;
        if (begin > total) begin = total;
    }
};
