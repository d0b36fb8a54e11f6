#include "loops.h"

#include <algorithm>

namespace universeg {

namespace {

// What an item costs beside its output channels, in channels: each transforms its row's input anew (measured: 14 % of the time of 64).
constexpr int TRANSFORM = 13;

struct Parts {
  int channels, entries;
};

// In how many parts the blocks of output channels and the bundles of entries go, so that the thread with the most to do has the least.
Parts parts_of(int rows, int blocks, int block, int bundles, int threads) {
  Parts best{1, 1};
  long least = 0;
  for (int channels = 1; channels <= blocks; ++channels)
    for (int entries = 1; entries <= bundles; ++entries) {
      const long turns = ((long)rows * channels * entries + threads - 1) / threads;
      const long cost = turns * ((bundles + entries - 1) / entries) * ((blocks + channels - 1) / channels * block + TRANSFORM);
      if (least == 0 || cost < least) best = {channels, entries}, least = cost;
    }
  return best;
}

}  // namespace

void convolve(Pool& pool, const Kernels& k, const Packed& packed, const std::vector<Source>& sources, const Shape& shape, int entries,
              const Epilogue& e, const std::vector<Floats>& scratch) {
  const Winograd& conv = packed.conv;
  const int rows = (shape.height + 3) / 4, blocks = conv.outputs / k.block;
  const int bundle = e.mean || e.pooled_mean ? entries : std::max(1, TOGETHER / ((shape.width + 3) / 4));  // a mean's entries in order
  const int bundles = (entries + bundle - 1) / bundle;
  const Parts parts = parts_of(rows, blocks, k.block, bundles, pool.threads());
  pool.each(rows * parts.channels * parts.entries, [&](int item, int thread) {
    const int channel = item / rows % parts.channels, entry = item / rows / parts.channels;
    const Share share{item % rows, blocks * channel / parts.channels * k.block, blocks * (channel + 1) / parts.channels * k.block,
                    bundles * entry / parts.entries * bundle, std::min(entries, bundles * (entry + 1) / parts.entries * bundle)};
    k.winograd_row(conv, sources.data(), (int)sources.size(), shape, share, e, scratch[thread].get());
  });
}

void resize(Pool& pool, ResizeRow row, const Map& from, int at, const Map& to, int count) {
  const int rows = to.shape.height;
  pool.each(count * rows, [&](int i, int) { row(from.at(at + i / rows), from.shape, i % rows, to.at(i / rows), to.shape); });
}

}  // namespace universeg
