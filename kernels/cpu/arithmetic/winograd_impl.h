// Winograd F(4x4, 3x3) with the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, arXiv:1509.09308); included by kernels_impl.h.
#pragma once

#include "vectors_impl.h"

namespace universeg {
namespace {

constexpr int TILE_ROWS = VECTOR_BYTES == 64 ? 12 : 6;  // the register tile's tiles: with 2 vectors each they fill the registers
constexpr int SEGMENT = 4;                              // tiles whose transformed columns stay in the first-level cache
constexpr long PAD = 16;                                // floats; keeps the 36 products' rows off each other's cache sets

inline void input_transform(const vec d[6], vec t[6]) {
  vec a = d[4] - 4.f * d[2], b = d[3] - 4.f * d[1];
  vec c = d[4] - d[2], e = 2.f * (d[3] - d[1]);
  t[0] = 4.f * d[0] - 5.f * d[2] + d[4];
  t[1] = a + b;
  t[2] = a - b;
  t[3] = c + e;
  t[4] = c - e;
  t[5] = 4.f * d[1] - 5.f * d[3] + d[5];
}

inline void output_transform(const vec m[6], vec y[4]) {
  vec s1 = m[1] + m[2], s2 = m[1] - m[2], s3 = m[3] + m[4], s4 = m[3] - m[4];
  y[0] = m[0] + s1 + s3;
  y[1] = s2 + 2.f * s4;
  y[2] = s1 + 4.f * s3;
  y[3] = s2 + 8.f * s4 + m[5];
}

// `count` tiles of one row of one map, all channels of one source, to v[36][..][inputs] at this source's channels.
template <class Value>
void transform_source(const Source& source, int entry, int tile_row, int tile, int count, int inputs, long product, float* v) {
  vec columns[2][6][4 * SEGMENT + 2];
  const long row = (long)source.pitch * source.channels;
  const Value* map = static_cast<const Value*>(source.data) + entry * source.stride;
  for (int from = 0; from < count; from += SEGMENT) {
    const int some = count - from < SEGMENT ? count - from : SEGMENT;
    const Value* corner = map + (4 * tile_row * (long)source.pitch + 4 * (tile + from)) * source.channels;
    for (int c = 0; c < source.channels; c += BLOCK) {  // whole cache lines
      for (int x = 0; x < 4 * some + 2; ++x)
        for (int half = 0; half < 2; ++half) {
          const Value* p = corner + (long)x * source.channels + c + half * L;
          vec d[6], t[6];
          for (int j = 0; j < 6; ++j) d[j] = load(p + j * row);
          input_transform(d, t);
          for (int j = 0; j < 6; ++j) columns[half][j][x] = t[j];
        }
      for (int i = 0; i < some; ++i) {
        float* to = v + (long)(from + i) * inputs + c;
        for (int j = 0; j < 6; ++j)
          for (int half = 0; half < 2; ++half) {
            vec t[6];
            input_transform(columns[half][j] + 4 * i, t);
            for (int x = 0; x < 6; ++x) store(to + (6 * j + x) * product + half * L, t[x]);
          }
      }
    }
  }
}

// m[r][0..BLOCK) = sum over k of v[r][k] * u[k][0..BLOCK) for ROWS rows.
template <int ROWS>
void inner_product(const float* v, long v_row, const float* u, float* m, long m_row, int inputs) {
  vec a[ROWS], b[ROWS];
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) a[r] = b[r] = vec{};
  for (int k = 0; k < inputs; ++k, u += BLOCK) {
    const vec u0 = load(u), u1 = load(u + L);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const vec x = splat(v[r * v_row + k]);
      a[r] += x * u0;
      b[r] += x * u1;
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    store(m + r * m_row, a[r]);
    store(m + r * m_row + L, b[r]);
  }
}

template <int ROWS>
inline bool inner_product_of(int rows, const float* v, long v_row, const float* u, float* m, long m_row, int inputs) {
  if (rows == ROWS) return inner_product<ROWS>(v, v_row, u, m, m_row, inputs), true;
  if constexpr (ROWS > 1) return inner_product_of<ROWS - 1>(rows, v, v_row, u, m, m_row, inputs);
  return false;
}

// From v[36][tiles][inputs] to m[tiles][outputs / BLOCK][36][BLOCK], of the outputs from..to-1.
void products(const Winograd& conv, int from, int to, const float* v, long v_product, float* m, int tiles) {
  const int groups = (tiles + TILE_ROWS - 1) / TILE_ROWS;
  for (int p = 0; p < 36; ++p)
    for (int out = from; out < to; out += BLOCK) {
      const float* u = conv.weights + ((long)p * conv.outputs + out) * conv.inputs;
      for (int g = 0; g < groups; ++g) {  // as evenly as they go
        const int first = tiles * g / groups, last = tiles * (g + 1) / groups;
        inner_product_of<TILE_ROWS>(last - first, v + p * v_product + (long)first * conv.inputs, conv.inputs, u,
                                    m + (long)first * 36 * conv.outputs + 36L * out + p * BLOCK, 36L * conv.outputs, conv.inputs);
      }
    }
}

// The share's channels of one 4x4 tile from the products, through the epilogue. rows and columns: how much of it is image.
template <bool WHOLE>
void finish_tile(const float* m, int outputs, const Share& share, const Shape& shape, int x0, int entry, const Epilogue& e) {
  const int y0 = 4 * share.row;
  const int rows = WHOLE ? 4 : (shape.height - y0 < 4 ? shape.height - y0 : 4);
  const int columns = WHOLE ? 4 : (shape.width - x0 < 4 ? shape.width - x0 : 4);
  const long row = (long)shape.pitch * outputs, at = ((y0 + 1L) * shape.pitch + x0 + 1) * outputs;
  const long pooled_row = (long)e.pooled_pitch * outputs, pooled_at = ((y0 / 2 + 1L) * e.pooled_pitch + x0 / 2 + 1) * outputs;
  const vec slope = splat(e.slope), weight = splat(e.entry_weights ? e.entry_weights[entry] : 0.f);
  const bool start = e.first && entry == 0;
  for (int c = share.from; c < share.to; c += L) {
    vec half[4][6], y[4][4];
    const float* sums = m + 36L * (c / BLOCK * BLOCK) + c % BLOCK;
    for (int i = 0; i < 6; ++i) {
      vec column[6], t[4];
      for (int j = 0; j < 6; ++j) column[j] = load(sums + (6 * j + i) * BLOCK);
      output_transform(column, t);
      for (int r = 0; r < 4; ++r) half[r][i] = t[r];
    }
    const vec bias = e.bias ? load(e.bias + c) : vec{};
    for (int r = 0; r < rows; ++r) {
      output_transform(half[r], y[r]);
      const long p = at + r * row + c;
      for (int x = 0; x < columns; ++x) {
        vec value = y[r][x] + bias;
        if (e.add) value += load(e.add + p + (long)x * outputs);
        y[r][x] = e.activate ? leaky(value, slope) : value;
      }
      if (e.out)
        for (int x = 0; x < columns; ++x) put(e.out, e.out_bytes, entry * e.out_stride + p + (long)x * outputs, y[r][x]);
      if (e.mean)
        for (int x = 0; x < columns; ++x) {
          float* mean = e.mean + p + (long)x * outputs;
          store(mean, start ? weight * y[r][x] : load(mean) + weight * y[r][x]);
        }
    }
    if (e.pooled || e.pooled_mean)
      for (int r = 0; r + 1 < rows; r += 2)
        for (int x = 0; x + 1 < columns; x += 2) {
          const long p = pooled_at + r / 2 * pooled_row + (long)(x / 2) * outputs + c;
          const vec top = larger(larger(y[r][x], y[r][x + 1]), larger(y[r + 1][x], y[r + 1][x + 1]));
          if (e.pooled) put(e.pooled, e.pooled_bytes, entry * e.pooled_stride + p, top);
          if (e.pooled_mean) store(e.pooled_mean + p, start ? weight * top : load(e.pooled_mean + p) + weight * top);
        }
  }
}

long scratch_floats(int inputs, int outputs) { return 36L * TOGETHER * (inputs + outputs) + 36 * PAD; }

void winograd_row(const Winograd& conv, const Source* sources, int count, const Shape& shape, const Share& share,
                  const Epilogue& e, float* scratch) {
  const int tiles = (shape.width + 3) / 4;
  const int pieces = (tiles + TOGETHER - 1) / TOGETHER;              // of a long row
  const int together = tiles >= TOGETHER ? 1 : TOGETHER / tiles;     // maps with short rows
  const long v_product = (long)TOGETHER * conv.inputs + PAD;
  float *v = scratch, *m = scratch + 36 * v_product;
  for (int entry = share.first; entry < share.last; entry += together)
    for (int piece = 0; piece < pieces; ++piece) {
      const int maps = share.last - entry < together ? share.last - entry : together;
      const int first = tiles * piece / pieces, some = tiles * (piece + 1) / pieces - first;
      for (int i = 0; i < maps; ++i) {
        float* to = v + (long)i * some * conv.inputs;
        for (int s = 0; s < count; to += sources[s].channels, ++s)
          (sources[s].bytes ? transform_source<signed char> : transform_source<float>)(sources[s], entry + i, share.row, first, some,
                                                                                      conv.inputs, v_product, to);
      }
      products(conv, share.from, share.to, v, v_product, m, maps * some);
      for (int i = 0; i < maps; ++i)
        for (int tile = first; tile < first + some; ++tile) {
          const float* sums = m + ((long)i * some + tile - first) * 36 * conv.outputs;
          const bool whole = 4 * share.row + 4 <= shape.height && 4 * tile + 4 <= shape.width;
          (whole ? finish_tile<true> : finish_tile<false>)(sums, conv.outputs, share, shape, 4 * tile, entry + i, e);
        }
    }
}

}  // namespace
}  // namespace universeg
