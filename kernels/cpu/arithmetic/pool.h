// A pool of threads that shares out the items of one loop at a time, and what lets it and its callers live through a fork.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <vector>

namespace universeg {

// While it lives, calls before() ahead of each fork of this process and after(child) behind it, in the thread that forks, in both
// processes. The child has that thread alone: other threads' locks are never let go there, and what they were writing stays half
// written. Neither function may wait or allocate. Declare it last in its owner, so that it is made last and goes first.
class AtFork {
 public:
  AtFork(std::function<void()> before, std::function<void(bool child)> after);
  ~AtFork();
  AtFork(const AtFork&) = delete;
  AtFork& operator=(const AtFork&) = delete;

 private:
  friend struct Forks;
  std::function<void()> before_;
  std::function<void(bool child)> after_;
};

// A mutex (for std::lock_guard) that a forked child can take. forget: called in a child where another thread held it at the fork;
// it puts new values in the place of those that the mutex guards, without destroying what may be half written.
class Turn {
 public:
  explicit Turn(std::function<void()> forget);
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
  bool held_ = false;  // by the thread that forks
  std::function<void()> forget_;
  AtFork at_fork_;
};

// A loop as it was shared out: the threads that it took in, the caller among them, and its items' seconds of
// processor time.
struct Loop {
  int threads;
  std::vector<double> seconds;
};

class Pool {
 public:
  // Where fewer threads than these can be started, the pool goes on with those there are.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }                     // asked for, the caller's own among them
  int started() const { return (int)workers_.size() + 1; }  // those there are

  // Calls body(item, thread) for every item in 0..items-1, each once, and returns when all are done. thread is in
  // 0..threads()-1, the caller is thread 0. One loop at a time. Where body throws, no further item is begun, and what it threw
  // (of several, one) is thrown here. In a forked child the threads start anew.
  void each(int items, const std::function<void(int, int)>& body);

  // Where it is set, loops are added to it, and the caller alone does their items, one after the other, and times them.
  std::vector<Loop>* record = nullptr;

 private:
  struct Worker {
    Pool* pool;
    int thread;
    pthread_t handle;
  };

  void start();
  void forget();
  void take(int thread);
  void work(int thread);
  void wake(int helpers);

  const int threads_;
  bool is_started_ = false;
  std::vector<Worker> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  int sleeping_ = 0;            // workers that wait for wake_; under mutex_
  std::atomic<int> wanted_{0};  // workers that the loop still takes in
  std::atomic<int> done_{0};    // workers that it took in and that have ended
  std::atomic<int> next_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  std::exception_ptr error_;
  int items_ = 0;
  const std::function<void(int, int)>* body_ = nullptr;
  AtFork at_fork_;
};

}  // namespace universeg
