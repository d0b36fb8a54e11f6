// The memory that maps lie in.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "kernels.h"

namespace universeg {

// Memory aligned to 64 bytes, zero at first; copies share it. No two begin at the same place of a page: equal places in several
// maps are read and written together, and would fall on the same few sets of the cache.
class Memory {
 public:
  Memory() = default;
  explicit Memory(size_t bytes);
  char* get() const { return data_; }

 private:
  std::shared_ptr<void> whole_;
  char* data_ = nullptr;
};

struct Floats : Memory {
  Floats() = default;
  explicit Floats(size_t count) : Memory(count * sizeof(float)) {}
  float* get() const { return reinterpret_cast<float*>(Memory::get()); }
};

// Maps of several entries, in the layout of kernels.h. A copy is the same maps.
struct Map {
  Shape shape{};
  int entries = 0;
  long stride = 0;  // values of one entry; the next one's first row is this one's last, all zeros

  Map() = default;
  Map(int height, int width, int channels, int count = 1, bool bytes = false) : entries(count) {
    const int rows = (height + 3) / 4 * 4 + 1;
    // At 64 channels of float32 16 pixels are a page: with this pitch the 16 pixels of a tile lie at different places of one.
    const int pitch = ((width + 3) / 4 * 4 + 2 + 11) / 16 * 16 + 4;
    shape = {height, width, channels, pitch, bytes};
    stride = (long)rows * pitch * channels;
    memory_ = Memory(((size_t)stride * entries + (size_t)pitch * channels) * size());
  }
  void* at(int entry) const { return memory_.get() + entry * stride * size(); }
  float* floats() const { return static_cast<float*>(at(0)); }  // of a map of float32
  Source source(int from = 0) const { return {at(from), stride, shape.channels, shape.pitch, shape.bytes}; }

 private:
  size_t size() const { return shape.bytes ? 1 : sizeof(float); }
  Memory memory_;
};

}  // namespace universeg
