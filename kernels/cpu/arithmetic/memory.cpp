#include "memory.h"

#include <atomic>
#include <cstring>
#include <new>

namespace universeg {

Memory::Memory(size_t bytes) {
  static std::atomic<unsigned> made{0};
  const size_t offset = made.fetch_add(1, std::memory_order_relaxed) * 21 % 64 * 64;
  void* p = nullptr;
  if (posix_memalign(&p, 4096, bytes + offset)) throw std::bad_alloc();
  whole_.reset(p, std::free);
  std::memset(p, 0, bytes + offset);
  data_ = static_cast<char*>(p) + offset;
}

}  // namespace universeg
