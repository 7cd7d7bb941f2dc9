// Threads that stay. A forward is one call over all threads with barriers inside, so that
// a layer costs no thread start and no trip through Python.
#pragma once

#include <atomic>
#include <mutex>
#include <thread>

#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(seen + 1, std::memory_order_release);
            generation_.notify_all();
            return;
        }
        await_change(generation_, seen);
    }

  private:
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> generation_{0};
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

inline OpenMP& open_mp() {
    static OpenMP found;
    return found;
}

class Pool {
  public:
    // Runs work(thread) for thread = 0 ... threads - 1, the first on the caller's thread.
    template <class Work>
    void run(int threads, const Work& work) {
        if (threads <= 1) return work(0);
        if (open_mp().run(threads, work)) return;
        std::lock_guard<std::mutex> turn(turn_);
        if (owner_ != getpid()) {  // threads do not survive a fork
            workers_ = 0;
            owner_ = getpid();
        }
        while (workers_ < threads - 1) {
            int index = ++workers_, seen = generation_.load();
            std::thread([this, index, seen] { serve(index, seen); }).detach();
        }
        call_ = [](const void* what, int thread) { (*static_cast<const Work*>(what))(thread); };
        work_ = &work;
        threads_ = threads;
        left_.store(workers_, std::memory_order_relaxed);
        generation_.fetch_add(1, std::memory_order_release);
        generation_.notify_all();
        work(0);
        for (int left; (left = left_.load(std::memory_order_acquire));) await_change(left_, left);
    }

  private:
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
    pid_t owner_ = getpid();
    void (*call_)(const void*, int) = nullptr;
    const void* work_ = nullptr;
    int threads_ = 0;
    alignas(64) std::atomic<int> generation_{0};
    alignas(64) std::atomic<int> left_{0};
};

inline Pool& pool() {
    // Never destroyed: its threads may outlive main.
    static Pool* made = new Pool;
    return *made;
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
