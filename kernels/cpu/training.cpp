#include "training.h"

#include <algorithm>
#include <vector>

#include "memory.h"

namespace universeg {

namespace {

int tiles(int side) { return (side + 3) / 4; }
int pitch_of(const Maps& x) { return 4 * tiles(x.width) + 2; }
long ring_floats(const Maps& x) { return 6L * pitch_of(x) * x.channels; }

// The six rows that a row of tiles reads, of one map, inside their ring of zeros.
void copy_rows(const Maps& x, int map, int tile_row, float* out) {
  const long row = (long)x.width * x.channels, pitch = (long)pitch_of(x) * x.channels;
  for (int j = 0; j < 6; ++j, out += pitch) {
    const int y = 4 * tile_row + j - 1;
    if (y < 0 || y >= x.height) {
      std::fill_n(out, pitch, 0.f);
      continue;
    }
    std::fill_n(out, x.channels, 0.f);
    std::copy_n(x.data + ((long)map * x.height + y) * row, row, out + x.channels);
    std::fill(out + x.channels + row, out + pitch, 0.f);
  }
}

}  // namespace

void convolve(const Kernels& k, Pool& pool, const Maps& x, const float* weights, int outputs, const float* bias, float* out) {
  const int rows = tiles(x.height), together = std::max(1, 16 / tiles(x.width));  // maps whose rows are short go together
  const int groups = (x.count + together - 1) / together;
  const long ring = ring_floats(x), stride = (long)x.height * x.width * outputs;
  std::vector<Floats> scratch;
  for (int i = 0; i < pool.threads(); ++i) scratch.emplace_back(together * ring + k.scratch_floats(x.channels, outputs));
  const Winograd conv{weights, x.channels, outputs};
  const Shape shape{x.height, x.width, outputs, x.width};
  pool.each(groups * rows, [&](int item, int thread) {
    const int row = item % rows, first = item / rows * together, count = std::min(together, x.count - first);
    float* ring_of = scratch[thread].get();
    for (int i = 0; i < count; ++i) copy_rows(x, first + i, row, ring_of + i * ring);
    // Both sides are told of rings that are not there: the input's rows above this one, the output's ring.
    const Source source{ring_of - 4L * row * pitch_of(x) * x.channels, ring, x.channels, pitch_of(x)};
    Epilogue e{};
    e.bias = bias;
    e.out = out + first * stride - ((long)x.width + 1) * outputs;
    e.out_stride = stride;
    k.winograd_row(conv, &source, 1, shape, row, count, e, ring_of + together * ring);
  });
}

void convolve_gradient(const Kernels& k, Pool& pool, const Maps& x, const Maps& gradient, float* sums) {
  const int rows = tiles(x.height), shares = pool.threads();
  const int together = std::max(1, 32 / tiles(x.width)), batches = (x.count * rows + together - 1) / together;
  const long ring = ring_floats(x), size = 36L * x.channels * gradient.channels;
  const long row_of = (long)x.width * gradient.channels;
  const Shape shape{x.height, x.width, gradient.channels, x.width};
  std::vector<Floats> partial(shares);
  pool.each(shares, [&](int share, int) {
    partial[share] = Floats(size);
    Floats scratch(together * ring + k.gradient_scratch_floats(x.channels, gradient.channels));
    std::vector<GradientRow> some;
    for (int batch = batches * share / shares; batch < batches * (share + 1) / shares; ++batch) {
      some.clear();
      for (int item = batch * together; item < std::min((batch + 1) * together, x.count * rows); ++item) {
        float* input = scratch.get() + (long)some.size() * ring;
        const int map = item / rows, row = item % rows;
        copy_rows(x, map, row, input);
        some.push_back({input, gradient.data + ((long)map * x.height + 4 * row) * row_of, std::min(4, x.height - 4 * row)});
      }
      k.gradient_rows(some.data(), (int)some.size(), x.channels, pitch_of(x), shape, partial[share].get(),
                      scratch.get() + together * ring);
    }
  });
  for (int share = 0; share < shares; ++share)
    for (long i = 0; i < size; ++i) sums[i] = share ? sums[i] + partial[share].get()[i] : partial[share].get()[i];
}

}  // namespace universeg
