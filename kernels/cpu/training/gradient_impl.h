// The weights' gradient of a Winograd convolution, for training; included by kernels_impl.h.
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

}  // namespace
}  // namespace universeg
