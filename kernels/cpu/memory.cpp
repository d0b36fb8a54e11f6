#include "memory.h"

#include <atomic>
#include <cstring>
#include <new>

namespace universeg {

Floats::Floats(size_t count) {
  static std::atomic<unsigned> made{0};
  const size_t offset = made.fetch_add(1, std::memory_order_relaxed) * 21 % 64 * 64, bytes = count * sizeof(float) + offset;
  void* p = nullptr;
  if (posix_memalign(&p, 4096, bytes)) throw std::bad_alloc();
  memory_.reset(p);
  std::memset(p, 0, bytes);
  data_ = reinterpret_cast<float*>(static_cast<char*>(p) + offset);
}

}  // namespace universeg
