// The loops over maps that every network has, shared out among the threads. A value's sums do not depend on how.
#pragma once

#include <vector>

#include "pool.h"
#include "weights.h"

namespace universeg {

// While it lives, the pool records its loops, where a record is given (see Pool::record).
class Recorded {
 public:
  Recorded(Pool& pool, std::vector<Loop>* record) : pool_(pool) { pool_.record = record; }
  ~Recorded() { pool_.record = nullptr; }
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;

 private:
  Pool& pool_;
};

// Convolves `entries` maps of this shape. Items are rows of tiles, and where these are too few for the threads, parts of the output
// channels, and of the entries where no mean joins them. scratch: of each thread, as Kernels::scratch_floats says.
void convolve(Pool& pool, const Kernels& kernels, const Packed& conv, const std::vector<Source>& sources, const Shape& shape,
              int entries, const Epilogue& epilogue, const std::vector<Floats>& scratch);

// `count` maps of `from`, the first at `at`, to as many of `to`, row by row: Kernels::upsample_row or pool_row.
using ResizeRow = void (*)(const void*, const Shape&, int, void*, const Shape&);
void resize(Pool& pool, ResizeRow row, const Map& from, int at, const Map& to, int count);

}  // namespace universeg
