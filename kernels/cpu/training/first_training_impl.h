// The first block in training: forward, and the gradients of its weights and of what its entries receive; included by
// kernels_impl.h.
#pragma once

#include "first_block_impl.h"

namespace universeg {
namespace {

// The parts of row y of an image that share a kernel: its first pixel, those between, its last.
struct Part {
  int position, from, to;
};
inline void parts_of(int y, int height, int width, Part parts[3]) {
  const int row = 3 * position_of(y, height);
  parts[0] = {row, 0, 1}, parts[1] = {row + 1, 1, width - 1}, parts[2] = {row + 2, width - 1, width};
}

void first_row(const FirstPair& f, int y, int c, const float* image, vec z[][2]) {
  const long pitch = f.width + 4, plane = pitch * (f.height + 4);
  Part parts[3];
  parts_of(y, f.height, f.width, parts);
  for (const Part& part : parts) {
    const float* weights = f.weights + part.position * 50L * f.outputs + c;
    const float* corner = image + y * pitch;
    int x = part.from;
    for (; x + 4 <= part.to; x += 4) add_taps<2, 4, 4>(weights, f.outputs, corner + x, plane, pitch, vec{}, vec{}, z + x);
    for (; x < part.to; ++x) add_taps<2, 1, 1>(weights, f.outputs, corner + x, plane, pitch, vec{}, vec{}, z + x);
  }
}

// Both rows of a pair for BLOCK outputs from c on, before the activation, to z[2][width][BLOCK].
void first_rows(const FirstPair& f, int c, int entry, float* z) {
  const float* image = f.images + entry * 2L * (f.height + 4) * (f.width + 4);
  for (int r = 0; r < 2; ++r) {
    float* row = z + (long)r * f.width * BLOCK;
    first_row(f, 2 * f.pair + r, c, image, reinterpret_cast<vec(*)[2]>(row));
    const float* add = f.add + (long)r * f.width * f.outputs + c;
    for (int x = 0; x < f.width; ++x)
      for (int i = 0; i < BLOCK; i += L) store(row + (long)x * BLOCK + i, load(row + (long)x * BLOCK + i) + load(add + (long)x * f.outputs + i));
  }
}

void first_forward(const FirstPair& f, float* pooled, float* mean, float* scratch) {
  const int half = f.width / 2;
  const vec slope = splat(f.slope);
  for (int entry = 0; entry < f.entries; ++entry) {
    const vec weight = splat(f.entry_weights[entry]);
    for (int c = 0; c < f.outputs; c += BLOCK) {
      first_rows(f, c, entry, scratch);
      for (int x = 0; x < half; ++x)
        for (int i = 0; i < BLOCK; i += L) {
          vec top;
          for (int j = 0; j < 4; ++j) {
            const long pixel = (long)(j >> 1) * f.width + 2 * x + (j & 1);
            const vec value = leaky(load(scratch + pixel * BLOCK + i), slope);
            float* m = mean + pixel * f.outputs + c + i;
            store(m, entry ? load(m) + weight * value : weight * value);
            top = j ? larger(top, value) : value;
          }
          store(pooled + entry * f.pooled_stride + (long)x * f.outputs + c + i, top);
        }
    }
  }
}

// Adds to the weights' gradient of BLOCK outputs what `count` pixels give, for five taps of a row at once.
inline void first_weights(const float* row, const float* gradient, int count, float* sums, int outputs) {
  vec a[5][2];
#pragma GCC unroll 5
  for (int dx = 0; dx < 5; ++dx) a[dx][0] = load(sums + dx * outputs), a[dx][1] = load(sums + dx * outputs + L);
  for (int x = 0; x < count; ++x) {
    const vec g0 = load(gradient + (long)x * BLOCK), g1 = load(gradient + (long)x * BLOCK + L);
#pragma GCC unroll 5
    for (int dx = 0; dx < 5; ++dx) {
      const vec v = splat(row[x + dx]);
      a[dx][0] += v * g0;
      a[dx][1] += v * g1;
    }
  }
#pragma GCC unroll 5
  for (int dx = 0; dx < 5; ++dx) store(sums + dx * outputs, a[dx][0]), store(sums + dx * outputs + L, a[dx][1]);
}

void first_backward(const FirstPair& f, const float* pooled, const float* mean, float* add_gradient, float* sums, float* scratch) {
  const int half = f.width / 2;
  const long pitch = f.width + 4, plane = pitch * (f.height + 4);
  const vec slope = splat(f.slope), one = splat(1.f), none = vec{};
  for (int entry = 0; entry < f.entries; ++entry) {
    const float* image = f.images + entry * 2 * plane;
    const vec weight = splat(f.entry_weights[entry]);
    for (int c = 0; c < f.outputs; c += BLOCK) {
      first_rows(f, c, entry, scratch);
      for (int x = 0; x < half; ++x)
        for (int i = 0; i < BLOCK; i += L) {
          // The activation grows, so that the largest before it is the largest after it. Equal ones: the first, as torch has it.
          vec z[4];
          for (int j = 0; j < 4; ++j) z[j] = load(scratch + ((long)(j >> 1) * f.width + 2 * x + (j & 1)) * BLOCK + i);
          const vec top = larger(larger(z[0], z[1]), larger(z[2], z[3]));
          vec left = load(pooled + entry * f.pooled_stride + (long)x * f.outputs + c + i);
          for (int j = 0; j < 4; ++j) {
            const long pixel = (long)(j >> 1) * f.width + 2 * x + (j & 1);
            const vec share = z[j] == top ? left : none;
            left = z[j] == top ? none : left;
            const vec g = (share + weight * load(mean + pixel * f.outputs + c + i)) * (z[j] > none ? one : slope);
            store(scratch + pixel * BLOCK + i, g);
            float* a = add_gradient + pixel * f.outputs + c + i;
            store(a, entry ? load(a) + g : g);
          }
        }
      for (int r = 0; r < 2; ++r) {
        const int y = 2 * f.pair + r;
        Part parts[3];
        parts_of(y, f.height, f.width, parts);
        for (const Part& part : parts)
          for (int tap = 0; tap < 10; ++tap)
            first_weights(image + tap / 5 * plane + (y + tap % 5) * pitch + part.from, scratch + ((long)r * f.width + part.from) * BLOCK,
                          part.to - part.from, sums + (part.position * 50L + tap * 5) * f.outputs + c, f.outputs);
      }
    }
  }
}

}  // namespace
}  // namespace universeg
