// What training needs beside the convolution, for one vector size: the weights' gradient of a Winograd convolution and the first
// block. Included by kernels_impl.h.
//
// With y = A'[(G w G') (B' x B)]A a tile, the gradient of u = G w G' is the sum over tiles of (B' x B)(A dy A'), for each of the
// 36 products an (inputs x tiles) times (tiles x outputs) product. The caller takes G' . G of it.
#pragma once

#include "winograd_impl.h"

namespace universeg {
namespace {

// Tiles whose transforms stay in the second-level cache; each reads and writes all sums once.
constexpr int GRADIENT_TILES = 32;

inline void gradient_transform(const vec y[4], vec z[6]) {
  vec a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4.f * y[2], d = 2.f * y[1] + 8.f * y[3];
  z[0] = y[0];
  z[1] = a + b;
  z[2] = a - b;
  z[3] = c + d;
  z[4] = c - d;
  z[5] = y[3];
}

// One 4x4 tile of a dense map (rows of `row` floats), of which rows x columns are image, to z[36][outputs], `product` floats apart.
void transform_gradient(const float* map, long row, int rows, int columns, int outputs, long product, float* z) {
  for (int c = 0; c < outputs; c += L) {
    vec half[6][4];
    for (int x = 0; x < 4; ++x) {
      vec y[4], t[6];
      for (int r = 0; r < 4; ++r) y[r] = r < rows && x < columns ? load(map + r * row + (long)x * outputs + c) : vec{};
      gradient_transform(y, t);
      for (int j = 0; j < 6; ++j) half[j][x] = t[j];
    }
    for (int j = 0; j < 6; ++j) {
      vec t[6];
      gradient_transform(half[j], t);
      for (int i = 0; i < 6; ++i) store(z + (6 * j + i) * product + c, t[i]);
    }
  }
}

// sums[r][0..BLOCK) += sum over tiles of v[tile][r] * z[tile][0..BLOCK) for ROWS rows.
template <int ROWS>
void outer_product(const float* v, long v_row, const float* z, long z_row, int tiles, float* sums, long sums_row) {
  vec a[ROWS], b[ROWS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) a[r] = load(sums + r * sums_row), b[r] = load(sums + r * sums_row + L);
  for (int t = 0; t < tiles; ++t, v += v_row, z += z_row) {
    const vec z0 = load(z), z1 = load(z + L);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const vec x = splat(v[r]);
      a[r] += x * z0;
      b[r] += x * z1;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) store(sums + r * sums_row, a[r]), store(sums + r * sums_row + L, b[r]);
}

template <int ROWS>
inline bool outer_product_of(int rows, const float* v, long v_row, const float* z, long z_row, int tiles, float* sums, long sums_row) {
  if (rows == ROWS) return outer_product<ROWS>(v, v_row, z, z_row, tiles, sums, sums_row), true;
  if constexpr (ROWS > 1) return outer_product_of<ROWS - 1>(rows, v, v_row, z, z_row, tiles, sums, sums_row);
  return false;
}

long gradient_scratch_floats(int inputs, int outputs) {
  return 36L * (GRADIENT_TILES * (inputs + outputs) + 2 * PAD);
}

void gradient_rows(const GradientRow* rows, int count, int inputs, int source_pitch, const Shape& shape, float* sums,
                   float* scratch) {
  const int outputs = shape.channels, tiles = (shape.width + 3) / 4, groups = (inputs + TILE_ROWS - 1) / TILE_ROWS;
  const long v_product = (long)GRADIENT_TILES * inputs + PAD, z_product = (long)GRADIENT_TILES * outputs + PAD;
  float *v = scratch, *z = scratch + 36 * v_product;
  int held = 0;
  auto multiply = [&] {
    for (int p = 0; p < 36; ++p)
      for (int c = 0; c < outputs; c += BLOCK)
        for (int g = 0; g < groups; ++g) {
          const int from = inputs * g / groups, to = inputs * (g + 1) / groups;
          outer_product_of<TILE_ROWS>(to - from, v + p * v_product + from, inputs, z + p * z_product + c, outputs, held,
                                      sums + ((long)p * inputs + from) * outputs + c, outputs);
        }
    held = 0;
  };
  for (int i = 0; i < count; ++i)
    for (int first = 0, some; first < tiles; first += some) {
      some = tiles - first < GRADIENT_TILES - held ? tiles - first : GRADIENT_TILES - held;
      const Source source{rows[i].input, 0, inputs, source_pitch, false};
      transform_source<float>(source, 0, 0, first, some, inputs, v_product, v + (long)held * inputs);
      for (int t = 0; t < some; ++t) {
        const int x = 4 * (first + t);
        transform_gradient(rows[i].gradient + (long)x * outputs, (long)shape.pitch * outputs, rows[i].rows, shape.width - x, outputs,
                           z_product, z + (long)(held + t) * outputs);
      }
      if ((held += some) == GRADIENT_TILES) multiply();
    }
  if (held) multiply();
}

// ---- the first block

// z[0..count)[BLOCK] = sum over the 50 taps, for pixels that share one kernel; corner: of the first pixel's 5x5 window.
template <int PIXELS>
inline void first_pixels(const float* weights, int outputs, const float* corner, long plane, long pitch, float* z) {
  vec a[PIXELS][2] = {};
  for (int channel = 0; channel < 2; ++channel)
    for (int dy = 0; dy < 5; ++dy) {
      const float* p = corner + channel * plane + dy * pitch;
      const float* w = weights + (channel * 25L + dy * 5) * outputs;
#pragma GCC unroll 5
      for (int dx = 0; dx < 5; ++dx, w += outputs) {
        const vec w0 = load(w), w1 = load(w + L);
#pragma GCC unroll 4
        for (int i = 0; i < PIXELS; ++i) {
          const vec v = splat(p[i + dx]);
          a[i][0] += v * w0;
          a[i][1] += v * w1;
        }
      }
    }
#pragma GCC unroll 4
  for (int i = 0; i < PIXELS; ++i) store(z + i * BLOCK, a[i][0]), store(z + i * BLOCK + L, a[i][1]);
}

// The parts of row y of an image that share a kernel: its first pixel, those between, its last.
struct Part {
  int position, from, to;
};
inline void parts_of(int y, int height, int width, Part parts[3]) {
  const int row = 3 * (y == 0 ? 0 : y == height - 1 ? 2 : 1);
  parts[0] = {row, 0, 1}, parts[1] = {row + 1, 1, width - 1}, parts[2] = {row + 2, width - 1, width};
}

void first_row(const FirstPair& f, int y, int c, const float* image, float* z) {
  const long pitch = f.width + 4, plane = pitch * (f.height + 4);
  Part parts[3];
  parts_of(y, f.height, f.width, parts);
  for (const Part& part : parts) {
    const float* weights = f.weights + part.position * 50L * f.outputs + c;
    int x = part.from;
    for (; x + 4 <= part.to; x += 4) first_pixels<4>(weights, f.outputs, image + y * pitch + x, plane, pitch, z + (long)x * BLOCK);
    for (; x < part.to; ++x) first_pixels<1>(weights, f.outputs, image + y * pitch + x, plane, pitch, z + (long)x * BLOCK);
  }
}

// Both rows of a pair for BLOCK outputs from c on, before the activation, to z[2][width][BLOCK].
void first_rows(const FirstPair& f, int c, int entry, float* z) {
  const float* image = f.images + entry * 2L * (f.height + 4) * (f.width + 4);
  for (int r = 0; r < 2; ++r) {
    float* row = z + (long)r * f.width * BLOCK;
    first_row(f, 2 * f.pair + r, c, image, row);
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
