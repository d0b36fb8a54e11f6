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

// The images of a support inside a border of two zeros.
Floats bordered(const FirstMaps& f) {
  const long pitch = f.width + 4, plane = pitch * (f.height + 4);
  Floats out(2 * f.entries * plane);
  for (int i = 0; i < 2 * f.entries; ++i)
    for (int y = 0; y < f.height; ++y)
      std::copy_n(f.images + ((long)i * f.height + y) * f.width, f.width, out.get() + i * plane + (y + 2) * pitch + 2);
  return out;
}

FirstPair pair_of(const FirstMaps& f, const float* images, int pair) {
  return {f.weights, images, f.add + 2L * pair * f.width * f.outputs, f.entry_weights, f.entries, f.height, f.width, f.outputs, pair,
          f.slope, (long)f.height / 2 * (f.width / 2) * f.outputs};
}

// Shares out the pairs of rows; body(pair, first row's offset in a map, in a pooled map, thread, scratch).
template <typename Body>
void each_pair(const Kernels& k, Pool& pool, const FirstMaps& f, int shares, const Body& body) {
  const int pairs = f.height / 2;
  pool.each(shares, [&](int share, int) {
    Floats scratch(2L * f.width * k.block);
    for (int pair = pairs * share / shares; pair < pairs * (share + 1) / shares; ++pair)
      body(pair, 2L * pair * f.width * f.outputs, (long)pair * (f.width / 2) * f.outputs, share, scratch.get());
  });
}

void add_up(const std::vector<Floats>& parts, long size, float* sums) {
  for (const Floats& part : parts)
    for (long i = 0; i < size; ++i) sums[i] += part.get()[i];
}

}  // namespace

void first_forward(const Kernels& k, Pool& pool, const FirstMaps& f, float* pooled, float* mean) {
  const Floats images = bordered(f);
  each_pair(k, pool, f, pool.threads(), [&](int pair, long at, long pooled_at, int, float* scratch) {
    k.first_forward(pair_of(f, images.get(), pair), pooled + pooled_at, mean + at, scratch);
  });
}

void first_backward(const Kernels& k, Pool& pool, const FirstMaps& f, const float* pooled, const float* mean, float* add, float* sums) {
  const Floats images = bordered(f);
  const long size = 9L * 50 * f.outputs;
  std::vector<Floats> partial(pool.threads());
  for (auto& part : partial) part = Floats(size);
  each_pair(k, pool, f, pool.threads(), [&](int pair, long at, long pooled_at, int share, float* scratch) {
    k.first_backward(pair_of(f, images.get(), pair), pooled + pooled_at, mean + at, add + at, partial[share].get(), scratch);
  });
  add_up(partial, size, sums);
}

void convolve(const Kernels& k, Pool& pool, const Maps& x, const float* weights, int outputs, const float* bias, float* out) {
  const int rows = tiles(x.height), together = std::max(1, 16 / tiles(x.width));  // maps whose rows are short go together
  const int groups = (x.count + together - 1) / together;
  const long ring = ring_floats(x), stride = (long)x.height * x.width * outputs;
  std::vector<Floats> scratch;
  for (int i = 0; i < pool.threads(); ++i) scratch.emplace_back(together * ring + k.scratch_floats(x.channels, outputs));
  Floats aligned_bias(outputs);
  if (bias) std::copy_n(bias, outputs, aligned_bias.get());
  const Winograd conv{weights, x.channels, outputs};
  const Shape shape{x.height, x.width, outputs, x.width, false};
  pool.each(groups * rows, [&](int item, int thread) {
    const int row = item % rows, first = item / rows * together, count = std::min(together, x.count - first);
    float* ring_of = scratch[thread].get();
    for (int i = 0; i < count; ++i) copy_rows(x, first + i, row, ring_of + i * ring);
    // Both sides are told of rings that are not there: the input's rows above this one, the output's ring.
    const Source source{ring_of - 4L * row * pitch_of(x) * x.channels, ring, x.channels, pitch_of(x), false};
    Epilogue e{};
    e.bias = aligned_bias.get();
    e.out = out + first * stride - ((long)x.width + 1) * outputs;
    e.out_stride = stride;
    k.winograd_row(conv, &source, 1, shape, {row, 0, outputs, 0, count}, e, ring_of + together * ring);
  });
}

void convolve_gradient(const Kernels& k, Pool& pool, const Maps& x, const Maps& gradient, float* sums) {
  const int rows = tiles(x.height), shares = pool.threads();
  const int together = std::max(1, 32 / tiles(x.width)), batches = (x.count * rows + together - 1) / together;
  const long ring = ring_floats(x), size = 36L * x.channels * gradient.channels;
  const long row_of = (long)x.width * gradient.channels;
  const Shape shape{x.height, x.width, gradient.channels, x.width, false};
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
  std::fill_n(sums, size, 0.f);
  add_up(partial, size, sums);
}

}  // namespace universeg
