// The pool for the self-test: every item once, several callers, bodies that throw, forks while it works and while it rests.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "pool.h"

using namespace universeg;

namespace {

int bad = 0;

void expect(bool ok, const char* what) {
  if (!ok) ++bad, std::printf("pool: %s\n", what);
}

// Whether every item is called once, by threads of the pool.
bool shares_out(Pool& pool, int items) {
  std::vector<std::atomic<int>> calls(items);
  std::atomic<bool> is_known{true};
  pool.each(items, [&](int item, int thread) {
    ++calls[item];
    if (thread < 0 || thread >= pool.threads()) is_known = false;
  });
  for (auto& count : calls)
    if (count != 1) return false;
  return is_known;
}

template <typename Error>
bool throws(Pool& pool, int items, int at) {
  try {
    pool.each(items, [&](int item, int) {
      if (at < 0 || item == at) throw Error();
    });
  } catch (const Error&) {
    return shares_out(pool, items);  // and goes on working
  }
  return false;
}

struct Odd {};

// In a child: exit status 0 where check() holds; a hang is ended by the alarm.
template <typename Check>
bool holds_in_child(const Check& check) {
  const pid_t child = fork();
  if (!child) {
#ifdef __SANITIZE_THREAD__  // starts no threads in a child; the fork itself is watched
    _exit(0);
#endif
    alarm(20);
    _exit(!check());
  }
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

}  // namespace

int check_pool() {
  for (int threads : {1, 2, 5}) {
    auto pool = std::make_unique<Pool>(threads);
    expect(pool->threads() == threads && pool->started() == threads, "not all threads were started");
    for (int repeat = 0; repeat < 300; ++repeat)
      for (int items : {0, 1, 2, 3, 40}) expect(shares_out(*pool, items), "an item was left out or called twice");
    usleep(20000);  // its threads sleep now
    expect(shares_out(*pool, 2) && shares_out(*pool, 40), "sleeping threads do not wake");
    for (int repeat = 0; repeat < 50; ++repeat)
      for (int at : {-1, 0, 7, 39})
        expect(throws<std::bad_alloc>(*pool, 40, at) && throws<Odd>(*pool, 40, at), "an exception does not reach the caller");
    expect(holds_in_child([&] { return shares_out(*pool, 40) && pool->started() == threads; }), "a child cannot use it");
    expect(holds_in_child([&] { return pool.reset(), true; }), "a child cannot drop it");
    expect(holds_in_child([&] {
      if (!shares_out(*pool, 40)) return false;
      pool.reset();
      return true;
    }), "a child cannot use it and drop it");
    expect(holds_in_child([&] { return holds_in_child([&] { return shares_out(*pool, 9); }) && shares_out(*pool, 9); }),
           "a grandchild cannot use it");
    expect(shares_out(*pool, 40), "a fork disturbs the parent");
  }
  Pool pool(3);
  long state = 0;
  bool is_forgotten = false;
  Turn turn([&] { is_forgotten = true; });
  std::atomic<bool> stop{false};
  std::atomic<int> held{0};
  std::thread caller([&] {
    while (!stop) {
      std::lock_guard<Turn> lock(turn);
      held = 1;
      std::atomic<long> sum{0};
      pool.each(20, [&](int item, int) { sum += item, usleep(50); });
      state += sum;
      held = 0;
    }
  });
  for (int repeat = 0; repeat < 20; ++repeat) {
    while (repeat % 2 && !held) usleep(10);
    expect(holds_in_child([&] {
      std::lock_guard<Turn> lock(turn);
      return shares_out(pool, 20);
    }), "a child of a fork during a loop cannot use it");
  }
  stop = true;
  caller.join();
  expect(!is_forgotten, "the parent forgets what it holds");
  { std::lock_guard<Turn> lock(turn); }
  std::mutex gate;
  gate.lock();
  std::thread holder([&] {
    std::lock_guard<Turn> lock(turn);
    held = 2;
    gate.lock();
  });
  while (held != 2) usleep(10);
  expect(holds_in_child([&] { return is_forgotten; }), "a child keeps what was half written");
  gate.unlock();
  holder.join();
  expect(holds_in_child([&] { return !is_forgotten; }), "a child forgets what nobody was writing");
  return bad;
}
