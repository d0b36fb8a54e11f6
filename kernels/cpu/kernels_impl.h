// The kernels for one vector size (VECTOR_BYTES); included once by each file that is compiled for an instruction set.
#include "kernels.h"

#ifndef VECTOR_BYTES
#error "define VECTOR_BYTES before including this file"
#endif

namespace universeg {
namespace {

typedef float vec __attribute__((vector_size(VECTOR_BYTES), may_alias));

constexpr int L = VECTOR_BYTES / 4;
constexpr int BLOCK = 2 * L;                      // outputs of the inner product's register tile
constexpr int TILE_ROWS = VECTOR_BYTES == 64 ? 12 : 6;  // its tiles: with 2 vectors each they fill the registers
constexpr int SEGMENT = 4;                        // tiles whose transformed columns stay in the first-level cache
constexpr long PAD = 16;                          // floats; keeps the 36 products' rows off each other's cache sets

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline vec leaky(vec x, vec slope) { return larger(x, x * slope); }  // slope lies between 0 and 1

// ---- Winograd F(4x4, 3x3) with the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, arXiv:1509.09308)

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
void transform_source(const Source& source, const float* map, int tile_row, int tile, int count, int inputs, long product, float* v) {
  vec columns[2][6][4 * SEGMENT + 2];
  const long row = (long)source.pitch * source.channels;
  for (int from = 0; from < count; from += SEGMENT) {
    const int some = count - from < SEGMENT ? count - from : SEGMENT;
    const float* corner = map + (4 * tile_row * (long)source.pitch + 4 * (tile + from)) * source.channels;
    for (int c = 0; c < source.channels; c += BLOCK) {  // whole cache lines
      for (int x = 0; x < 4 * some + 2; ++x)
        for (int half = 0; half < 2; ++half) {
          const float* p = corner + (long)x * source.channels + c + half * L;
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

// From v[36][tiles][inputs] to m[tiles][outputs / BLOCK][36][BLOCK].
void products(const Winograd& conv, const float* v, long v_product, float* m, int tiles) {
  const int groups = (tiles + TILE_ROWS - 1) / TILE_ROWS;
  const float* u = conv.weights;
  for (int p = 0; p < 36; ++p)
    for (int out = 0; out < conv.outputs; out += BLOCK, u += (long)conv.inputs * BLOCK)
      for (int g = 0; g < groups; ++g) {  // as evenly as they go
        const int first = tiles * g / groups, last = tiles * (g + 1) / groups;
        inner_product_of<TILE_ROWS>(last - first, v + p * v_product + (long)first * conv.inputs, conv.inputs, u,
                                    m + (long)first * 36 * conv.outputs + 36L * out + p * BLOCK, 36L * conv.outputs, conv.inputs);
      }
}

// One 4x4 tile of `outputs` channels from the products, through the epilogue. rows and columns: how much of it is image.
template <bool WHOLE>
void finish_tile(const float* m, int outputs, const Shape& shape, int y0, int x0, int entry, const Epilogue& e) {
  const int rows = WHOLE ? 4 : (shape.height - y0 < 4 ? shape.height - y0 : 4);
  const int columns = WHOLE ? 4 : (shape.width - x0 < 4 ? shape.width - x0 : 4);
  const long row = (long)shape.pitch * outputs, at = ((y0 + 1L) * shape.pitch + x0 + 1) * outputs;
  const long pooled_row = (long)e.pooled_pitch * outputs, pooled_at = ((y0 / 2 + 1L) * e.pooled_pitch + x0 / 2 + 1) * outputs;
  const vec slope = splat(e.slope), weight = splat(e.entry_weights ? e.entry_weights[entry] : 0.f);
  const bool start = e.first && entry == 0;
  for (int c = 0; c < outputs; c += L) {
    vec half[4][6], y[4][4];
    const float* from = m + 36L * (c / BLOCK * BLOCK) + c % BLOCK;
    for (int i = 0; i < 6; ++i) {
      vec column[6], t[4];
      for (int j = 0; j < 6; ++j) column[j] = load(from + (6 * j + i) * BLOCK);
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
        for (int x = 0; x < columns; ++x) store(e.out + entry * e.out_stride + p + (long)x * outputs, y[r][x]);
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
          if (e.pooled) store(e.pooled + entry * e.pooled_stride + p, top);
          if (e.pooled_mean) store(e.pooled_mean + p, start ? weight * top : load(e.pooled_mean + p) + weight * top);
        }
  }
}

// Tiles that go through the inner products together: more of them use each weight more often, fewer stay in the cache.
constexpr int TOGETHER = 16;

long scratch_floats(int inputs, int outputs) { return 36L * TOGETHER * (inputs + outputs) + 36 * PAD; }

void winograd_row(const Winograd& conv, const Source* sources, int count, const Shape& shape, int tile_row, int entries,
                  const Epilogue& e, float* scratch) {
  const int tiles = (shape.width + 3) / 4;
  const int pieces = (tiles + TOGETHER - 1) / TOGETHER;              // of a long row
  const int together = tiles >= TOGETHER ? 1 : TOGETHER / tiles;     // maps with short rows
  const long v_product = (long)TOGETHER * conv.inputs + PAD;
  float *v = scratch, *m = scratch + 36 * v_product;
  for (int from = 0; from < entries; from += together)
    for (int piece = 0; piece < pieces; ++piece) {
      const int maps = entries - from < together ? entries - from : together;
      const int first = tiles * piece / pieces, some = tiles * (piece + 1) / pieces - first;
      for (int i = 0; i < maps; ++i) {
        float* to = v + (long)i * some * conv.inputs;
        for (int s = 0; s < count; to += sources[s].channels, ++s)
          transform_source(sources[s], sources[s].data + (from + i) * sources[s].stride, tile_row, first, some, conv.inputs, v_product, to);
      }
      products(conv, v, v_product, m, maps * some);
      for (int i = 0; i < maps; ++i)
        for (int tile = first; tile < first + some; ++tile) {
          const float* sums = m + ((long)i * some + tile - first) * 36 * conv.outputs;
          const bool whole = 4 * tile_row + 4 <= shape.height && 4 * tile + 4 <= shape.width;
          (whole ? finish_tile<true> : finish_tile<false>)(sums, conv.outputs, shape, 4 * tile_row, 4 * tile, from + i, e);
        }
    }
}

// ---- the first block

// All outputs of one pixel with the kernel of its position and zeros outside; for the outermost squares.
void border_pixel(const FirstBlock& block, const float* image, int y, int x, const Shape& shape, float* out) {
  const int position = (y == 0 ? 0 : y == shape.height - 1 ? 2 : 1) * 3 + (x == 0 ? 0 : x == shape.width - 1 ? 2 : 1);
  const float* weights = block.weights + (long)position * 50 * block.outputs;
  for (int c = 0; c < block.outputs; c += L) store(out + c, vec{});
  for (int tap = 0; tap < 50; ++tap) {
    const int row = y + tap % 25 / 5 - 2, column = x + tap % 5 - 2;
    if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
    const vec v = splat(image[((tap / 25) * (long)shape.height + row) * shape.width + column]);
    const float* w = weights + (long)tap * block.outputs;
    for (int c = 0; c < block.outputs; c += L) store(out + c, load(out + c) + v * load(w + c));
  }
}

// Adds to BLOCK outputs of a 2x2 square inside the image what CHANNELS of its inputs give: the image, or image and label.
template <int CHANNELS>
inline void inner_square(const float* weights, int outputs, const float* corner, long plane, long pitch, vec start0, vec start1,
                         vec out[4][2]) {
  vec a[4][2] = {{start0, start1}, {start0, start1}, {start0, start1}, {start0, start1}};
  for (int channel = 0; channel < CHANNELS; ++channel)
    for (int dy = 0; dy < 5; ++dy) {
      const float* p = corner + channel * plane + dy * pitch;
      const float* w = weights + (channel * 25L + dy * 5) * outputs;
#pragma GCC unroll 5
      for (int dx = 0; dx < 5; ++dx, w += outputs) {
        const vec w0 = load(w), w1 = load(w + L);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const vec v = splat(p[(i >> 1) * pitch + (i & 1) + dx]);
          a[i][0] += v * w0;
          a[i][1] += v * w1;
        }
      }
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) out[i][0] = a[i][0], out[i][1] = a[i][1];
}

void first_block_rows(const FirstBlock& block, const Images& images, const Shape& shape, int pair, int entries,
                      const Epilogue& e) {
  const int outputs = block.outputs, y = 2 * pair;
  const long pitch = shape.width, plane = pitch * shape.height, row = (long)shape.pitch * outputs;
  const vec slope = splat(e.slope);
  alignas(64) float border[4][BLOCK * 64];
  const bool edge_rows = y == 0 || y + 2 >= shape.height;
  for (int entry = 0; entry < entries; ++entry) {
    const float* image = images.data + entry * images.stride;
    const unsigned char* labels = images.labels + entry * images.labels_stride + (long)pair * (shape.width / 2);
    const vec weight = splat(e.entry_weights[entry]);
    const bool start = e.first && entry == 0;
    auto finish = [&](vec a[4][2], int x, int c) {
      const long at = ((y + 1L) * shape.pitch + x + 1) * outputs + c;
      const long pooled_at = ((pair + 1L) * e.pooled_pitch + x / 2 + 1) * outputs + c;
      for (int half = 0; half < 2; ++half) {
        vec top;
        for (int i = 0; i < 4; ++i) {
          const long p = at + (i >> 1) * row + (i & 1) * (long)outputs + half * L;
          const vec value = leaky(a[i][half] + load(e.add + p), slope);
          store(e.mean + p, start ? weight * value : load(e.mean + p) + weight * value);
          top = i ? larger(top, value) : value;
        }
        const long p = pooled_at + half * L;
        store(e.pooled + entry * e.pooled_stride + p, top);
        store(e.pooled_mean + p, start ? weight * top : load(e.pooled_mean + p) + weight * top);
      }
    };
    for (int c = 0; c < outputs; c += BLOCK) {
      const float* weights = block.weights + 4L * 50 * outputs + c;  // the middle position
      const int from = edge_rows ? shape.width : 2, to = edge_rows ? shape.width : shape.width - 2;
      for (int x = from; x < to; x += 2) {
        vec a[4][2];
        const float* corner = image + (y - 2) * pitch + x - 2;
        if (labels[x / 2] == MIXED) {
          inner_square<2>(weights, outputs, corner, plane, pitch, vec{}, vec{}, a);
        } else {  // most squares: masks are piecewise constant
          const vec label = splat(labels[x / 2]);
          inner_square<1>(weights, outputs, corner, plane, pitch, label * load(block.label_sum + c), label * load(block.label_sum + c + L), a);
        }
        finish(a, x, c);
      }
    }
    for (int x = 0; x < shape.width; x += edge_rows || x + 2 >= shape.width ? 2 : shape.width - 2) {
      for (int i = 0; i < 4; ++i)
        border_pixel(block, image, y + (i >> 1), x + (i & 1), shape, border[i]);
      for (int c = 0; c < outputs; c += BLOCK) {
        vec a[4][2];
        for (int i = 0; i < 4; ++i) a[i][0] = load(border[i] + c), a[i][1] = load(border[i] + c + L);
        finish(a, x, c);
      }
    }
  }
}

// ---- small things

void small_row(const float* weights, const float* planar, int inputs, const Shape& shape, int y, const float* bias, float* out) {
  const long pitch = shape.width + 2, plane = pitch * (shape.height + 2);
  for (int x = 0; x < shape.width; ++x) {
    float* to = out + ((y + 1L) * shape.pitch + x + 1) * shape.channels;
    for (int c = 0; c < shape.channels; c += BLOCK) {
      vec a = bias ? load(bias + c) : vec{}, b = bias ? load(bias + c + L) : vec{};
      for (int i = 0; i < inputs; ++i)
        for (int tap = 0; tap < 9; ++tap) {
          const vec v = splat(planar[i * plane + (y + tap / 3) * pitch + x + tap % 3]);
          const float* w = weights + (i * 9L + tap) * shape.channels + c;
          a += v * load(w);
          b += v * load(w + L);
        }
      store(to + c, a);
      store(to + c + L, b);
    }
  }
}

void upsample_row(const float* in, const Shape& from, int y, float* out, const Shape& to) {
  const float step_y = to.height > 1 ? (from.height - 1.f) / (to.height - 1.f) : 0.f;
  const float step_x = to.width > 1 ? (from.width - 1.f) / (to.width - 1.f) : 0.f;
  const int y0 = (int)(y * step_y), y1 = y0 + 1 < from.height ? y0 + 1 : y0;
  const vec fy = splat(y * step_y - y0);
  const float* top = in + ((y0 + 1L) * from.pitch + 1) * from.channels;
  const float* bottom = in + ((y1 + 1L) * from.pitch + 1) * from.channels;
  for (int x = 0; x < to.width; ++x) {
    const int x0 = (int)(x * step_x), x1 = x0 + 1 < from.width ? x0 + 1 : x0;
    const vec fx = splat(x * step_x - x0);
    float* target = out + ((y + 1L) * to.pitch + x + 1) * to.channels;
    for (int c = 0; c < to.channels; c += L) {
      const vec a = load(top + (long)x0 * from.channels + c), b = load(top + (long)x1 * from.channels + c);
      const vec d = load(bottom + (long)x0 * from.channels + c), f = load(bottom + (long)x1 * from.channels + c);
      const vec upper = a + fx * (b - a), lower = d + fx * (f - d);
      store(target + c, upper + fy * (lower - upper));
    }
  }
}

void pool_row(const float* in, const Shape& from, int y, float* out, const Shape& to) {
  const float* p = in + ((2 * y + 1L) * from.pitch + 1) * from.channels;
  const long down = (long)from.pitch * from.channels, right = from.channels;
  for (int x = 0; x < to.width; ++x, p += 2 * right) {
    float* target = out + ((y + 1L) * to.pitch + x + 1) * to.channels;
    for (int c = 0; c < to.channels; c += L)
      store(target + c, larger(larger(load(p + c), load(p + right + c)), larger(load(p + down + c), load(p + down + right + c))));
  }
}

void head_row(const float* weights, float bias, const float* in, const Shape& shape, int y, float* out) {
  for (int x = 0; x < shape.width; ++x) {
    const float* p = in + ((y + 1L) * shape.pitch + x + 1) * shape.channels;
    vec sum = vec{};
    for (int c = 0; c < shape.channels; c += L) sum += load(p + c) * load(weights + c);
    float total = bias;
    for (int i = 0; i < L; ++i) total += sum[i];
    out[(long)y * shape.width + x] = total;
  }
}

}  // namespace
}  // namespace universeg

#include "gradient_impl.h"

namespace universeg {

static const Kernels KERNELS = {KERNELS_NAME, BLOCK, winograd_row, scratch_floats, gradient_rows, gradient_scratch_floats,
                                first_forward, first_backward,
                                first_block_rows, small_row, upsample_row, pool_row, head_row};

}  // namespace universeg
