// The memory that maps lie in.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

#include "kernels.h"

namespace universeg {

// Floats aligned to 64 bytes, zero at first. No two begin at the same place of a page: equal places in several maps are
// read and written together, and would fall on the same few sets of the cache.
class Floats {
 public:
  Floats() = default;
  explicit Floats(size_t count);
  float* get() const { return data_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  float* data_ = nullptr;
};

// Maps of several entries, in the layout of kernels.h.
struct Map {
  Shape shape{};
  long stride = 0;  // floats of one entry
  Floats floats;

  Map() = default;
  Map(int height, int width, int channels, int entries = 1) {
    const int rows = (height + 3) / 4 * 4 + 2;
    // At 64 channels 16 pixels are a page: with this pitch the 16 pixels of a tile lie at different places of one.
    const int pitch = ((width + 3) / 4 * 4 + 2 + 11) / 16 * 16 + 4;
    shape = {height, width, channels, pitch};
    stride = (long)rows * pitch * channels;
    floats = Floats((size_t)stride * entries);
  }
  float* at(int entry) const { return floats.get() + entry * stride; }
  Source source(int from = 0) const { return {at(from), stride, shape.channels, shape.pitch}; }
};

}  // namespace universeg
