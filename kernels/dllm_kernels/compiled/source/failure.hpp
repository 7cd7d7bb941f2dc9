// What ends a call in place of an answer: exceptions, carried from any thread to the caller's.
#pragma once

#include <atomic>
#include <exception>
#include <new>
#include <stdexcept>

// Thrown at a barrier that not all threads will reach.
struct Abandoned {};
// Thrown where the system starts no more threads; nothing has been done then.
struct NoThreads {};

// For tests: a thread of a call to come fails at its n-th look; see dllm_fail.
class Fault {
  public:
    void ask(int thread, int looks, bool memory) {
        looks_ = looks, memory_ = memory;
        thread_ = thread;
    }

    void look(int thread) {
        if (thread_.load(std::memory_order_relaxed) != thread || looks_-- > 0) return;
        thread_ = -1;
        if (memory_) throw std::bad_alloc();
        throw std::runtime_error("a fault that was asked for");
    }

  private:
    std::atomic<int> thread_{-1}, looks_{0};
    std::atomic<bool> memory_{false};
};

inline Fault fault;

// What left a thread of a call first. It may leave neither the thread nor a C function: both end the process.
class Failure {
  public:
    template <class Work>
    void guard(const Work& work, int thread) noexcept {
        try {
            work(thread);
        } catch (const Abandoned&) {
            // Whoever abandoned the others says why.
        } catch (...) {
            if (!found_.exchange(true)) first_ = std::current_exception();
        }
    }

    // On the caller's thread, after all others.
    void rethrow() const {
        if (first_) std::rethrow_exception(first_);
    }

  private:
    std::atomic<bool> found_{false};
    std::exception_ptr first_;
};
