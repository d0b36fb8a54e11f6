#include "pool.h"

#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <new>
#include <utility>

namespace universeg {

// All AtFork of the process. Never destroyed: owners may outlive every static.
struct Forks {
  std::mutex mutex;
  std::vector<AtFork*> all;

  static Forks& get() {
    static Forks* forks = new Forks;
    return *forks;
  }

  Forks() { pthread_atfork(before, [] { after(false); }, [] { after(true); }); }

  static void before() {
    Forks& forks = get();
    forks.mutex.lock();
    for (AtFork* each : forks.all)
      if (each->before_) each->before_();
  }
  static void after(bool child) {
    Forks& forks = get();
    for (AtFork* each : forks.all) each->after_(child);
    forks.mutex.unlock();
  }
};

AtFork::AtFork(std::function<void()> before, std::function<void(bool child)> after)
    : before_(std::move(before)), after_(std::move(after)) {
  Forks& forks = Forks::get();
  std::lock_guard<std::mutex> lock(forks.mutex);
  forks.all.push_back(this);
}

AtFork::~AtFork() {
  Forks& forks = Forks::get();
  std::lock_guard<std::mutex> lock(forks.mutex);
  forks.all.erase(std::find(forks.all.begin(), forks.all.end(), this));
}

// Held over the fork where it is free, so that nobody is half way through a change at that moment; a fork never waits for a run.
Turn::Turn(std::function<void()> forget)
    : forget_(std::move(forget)),
      at_fork_([this] { held_ = mutex_.try_lock(); },
               [this](bool child) {
                 if (held_) {
                   mutex_.unlock();
                 } else if (child) {
                   new (&mutex_) std::mutex;
                   forget_();
                 }
               }) {}

namespace {

constexpr int SPINS = 1000;                 // some tens of microseconds: loops follow each other closely
constexpr size_t STACK_BYTES = 1024 * 1024;  // the usual 8 MB soon fill a limited address space

// Address space that threads must leave to the work itself, where it is limited: held while they are started.
class Room {
 public:
  Room() : begin_(mmap(nullptr, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {}
  ~Room() {
    if (*this) munmap(begin_, BYTES);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  explicit operator bool() const { return begin_ != MAP_FAILED; }

 private:
  static constexpr size_t BYTES = 256 * 1024 * 1024;
  void* const begin_;
};

// That this thread has had of a processor.
double seconds_of_thread() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) : threads_(threads), at_fork_(nullptr, [this](bool child) { if (child) forget(); }) { start(); }

Pool::~Pool() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (Worker& worker : workers_) pthread_join(worker.handle, nullptr);
}

void Pool::start() {
  is_started_ = true;
  if (threads_ < 2) return;
  const Room room;
  pthread_attr_t attributes;
  if (!room || pthread_attr_init(&attributes)) return;
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  try {
    workers_.reserve(threads_ - 1);  // a worker is read where it lies
    for (int thread = 1; thread < threads_; ++thread) {
      workers_.push_back({this, thread, {}});
      auto run = [](void* given) -> void* {
        auto* worker = static_cast<Worker*>(given);
        worker->pool->work(worker->thread);
        return nullptr;
      };
      if (pthread_create(&workers_.back().handle, &attributes, run, &workers_.back())) {
        workers_.pop_back();
        break;
      }
    }
  } catch (const std::bad_alloc&) {  // of the list of workers
  }
  pthread_attr_destroy(&attributes);
}

// In a child of a fork: its workers do not exist, and may have been anywhere.
void Pool::forget() {
  new (&workers_) std::vector<Worker>;
  new (&mutex_) std::mutex;
  new (&wake_) std::condition_variable;
  new (&error_) std::exception_ptr;
  is_started_ = false;
  sleeping_ = 0;
  wanted_ = done_ = 0;
  stop_ = failed_ = false;
}

void Pool::each(int items, const std::function<void(int, int)>& body) {
  if (!is_started_) start();
  const int helpers = std::max(0, std::min((int)workers_.size(), items - 1));
  if (record) {
    Loop loop{helpers + 1, {}};
    for (int i = 0; i < items; ++i) {
      const double start = seconds_of_thread();
      body(i, 0);
      loop.seconds.push_back(seconds_of_thread() - start);
    }
    record->push_back(std::move(loop));
    return;
  }
  if (helpers < 1) {
    for (int i = 0; i < items; ++i) body(i, 0);
    return;
  }
  body_ = &body;
  items_ = items;
  next_.store(0, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  wake(helpers);
  take(0);
  const int taken_in = helpers - wanted_.exchange(0, std::memory_order_acq_rel);  // who still sleeps is not waited for
  for (int spins = 0; done_.load(std::memory_order_acquire) < taken_in; ++spins) spins < SPINS ? pause() : (void)sched_yield();
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void Pool::wake(int helpers) {
  int sleeping;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    wanted_.store(helpers, std::memory_order_release);
    sleeping = sleeping_;
  }
  const int woken = helpers - ((int)workers_.size() - sleeping);  // who does not sleep comes by himself
  if (woken >= sleeping && sleeping > 0) {
    wake_.notify_all();
  } else {
    for (int i = 0; i < woken; ++i) wake_.notify_one();
  }
}

void Pool::take(int thread) {
  try {
    for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < items_;) (*body_)(i, thread);
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
    next_.store(items_, std::memory_order_relaxed);
  }
}

void Pool::work(int thread) {
  const auto is_called = [this] { return wanted_.load(std::memory_order_acquire) > 0 || stop_.load(std::memory_order_acquire); };
  for (;;) {
    for (int spins = 0; spins < SPINS && !is_called(); ++spins) pause();
    if (!is_called()) {
      std::unique_lock<std::mutex> lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, is_called);
      --sleeping_;
    }
    if (stop_.load(std::memory_order_acquire)) return;
    for (int wanted = wanted_.load(std::memory_order_relaxed); wanted > 0;) {
      if (!wanted_.compare_exchange_weak(wanted, wanted - 1, std::memory_order_acq_rel, std::memory_order_relaxed)) continue;
      take(thread);
      done_.fetch_add(1, std::memory_order_release);
      break;
    }
  }
}

}  // namespace universeg
