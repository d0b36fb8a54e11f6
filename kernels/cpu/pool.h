// A pool of threads that shares out the items of one loop at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace universeg {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return (int)workers_.size() + 1; }

  // Calls body(item, thread) for every item in 0..items-1, each once, and returns when all are done. The caller is thread
  // 0. One loop at a time; body must not throw.
  void each(int items, const std::function<void(int, int)>& body) {
    if (workers_.empty() || items == 1) {
      for (int i = 0; i < items; ++i) body(i, 0);
      return;
    }
    body_ = &body;
    items_ = items;
    next_.store(0, std::memory_order_relaxed);
    busy_.store((int)workers_.size(), std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take(0);
    for (int spins = 0; busy_.load(std::memory_order_acquire) > 0; ++spins)
      if (spins > SPINS) std::this_thread::yield();
  }

 private:
  static constexpr int SPINS = 4000;  // some tens of microseconds: loops follow each other closely

  void take(int thread) {
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) (*body_)(i, thread);
  }

  void work(int thread) {
    for (unsigned seen = 0;;) {
      for (int spins = 0; spins < SPINS && round_.load(std::memory_order_acquire) == seen; ++spins) {
      }
      if (round_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen; });
      }
      ++seen;
      if (stop_.load(std::memory_order_acquire)) return;
      take(thread);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<unsigned> round_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> next_{0}, busy_{0};
  int items_ = 0;
  const std::function<void(int, int)>* body_ = nullptr;
};

}  // namespace universeg
