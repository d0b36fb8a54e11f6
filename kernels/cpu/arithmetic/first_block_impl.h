// The first block's composed 5x5 convolution of the support; included by kernels_impl.h.
#pragma once

#include "vectors_impl.h"

namespace universeg {
namespace {

// 0, 1 or 2: the first, a middle or the last of `size` rows (columns); 3 * row's + column's is a pixel's kernel.
inline int position_of(int at, int size) { return at == 0 ? 0 : at == size - 1 ? 2 : 1; }

// All outputs of one pixel with the kernel of its position and zeros outside; for the outermost squares.
void border_pixel(const FirstBlock& block, const float* image, int y, int x, const Shape& shape, float* out) {
  const int position = 3 * position_of(y, shape.height) + position_of(x, shape.width);
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

// BLOCK outputs of PIXELS pixels that share a kernel, PER_ROW of them side by side: start, and what CHANNELS of the inputs give (the
// image, or image and label). corner: of the first pixel's 5x5 window.
template <int CHANNELS, int PIXELS, int PER_ROW>
inline void add_taps(const float* weights, int outputs, const float* corner, long plane, long pitch, vec start0, vec start1,
                     vec out[PIXELS][2]) {
  vec a[PIXELS][2];
#pragma GCC unroll 4
  for (int i = 0; i < PIXELS; ++i) a[i][0] = start0, a[i][1] = start1;
  for (int channel = 0; channel < CHANNELS; ++channel)
    for (int dy = 0; dy < 5; ++dy) {
      const float* p = corner + channel * plane + dy * pitch;
      const float* w = weights + (channel * 25L + dy * 5) * outputs;
#pragma GCC unroll 5
      for (int dx = 0; dx < 5; ++dx, w += outputs) {
        const vec w0 = load(w), w1 = load(w + L);
#pragma GCC unroll 4
        for (int i = 0; i < PIXELS; ++i) {
          const vec v = splat(p[i / PER_ROW * pitch + i % PER_ROW + dx]);
          a[i][0] += v * w0;
          a[i][1] += v * w1;
        }
      }
    }
#pragma GCC unroll 4
  for (int i = 0; i < PIXELS; ++i) out[i][0] = a[i][0], out[i][1] = a[i][1];
}

void first_block_rows(const FirstBlock& block, const Images& images, const FirstTerms& terms, const Shape& shape, int pair,
                      int entries, const Epilogue& e) {
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
    float* known = entry < terms.count ? terms.data + ((long)entry * shape.height / 2 + pair) * shape.width * 2 * outputs : nullptr;
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
        put(e.pooled, e.pooled_bytes, entry * e.pooled_stride + p, top);
        store(e.pooled_mean + p, start ? weight * top : load(e.pooled_mean + p) + weight * top);
      }
    };
    auto keep = [&](vec a[4][2], int x, int c) {
      float* to = known + 2L * x * outputs + 4 * c;
      for (int i = 0; i < 8; ++i) store(to + i * L, a[i / 2][i % 2]);
    };
    if (known && terms.known) {
      const float* from = known;
      for (int x = 0; x < shape.width; x += 2)
        for (int c = 0; c < outputs; c += BLOCK, from += 8 * L) {
          vec a[4][2];
          for (int i = 0; i < 8; ++i) a[i / 2][i % 2] = load(from + i * L);
          finish(a, x, c);
        }
      continue;
    }
    for (int c = 0; c < outputs; c += BLOCK) {
      const float* weights = block.weights + 4L * 50 * outputs + c;  // the middle position
      const int from = edge_rows ? shape.width : 2, to = edge_rows ? shape.width : shape.width - 2;
      for (int x = from; x < to; x += 2) {
        vec a[4][2];
        const float* corner = image + (y - 2) * pitch + x - 2;
        if (labels[x / 2] == MIXED) {
          add_taps<2, 4, 2>(weights, outputs, corner, plane, pitch, vec{}, vec{}, a);
        } else {  // most squares: masks are piecewise constant
          const vec label = splat(labels[x / 2]);
          add_taps<1, 4, 2>(weights, outputs, corner, plane, pitch, label * load(block.label_sum + c), label * load(block.label_sum + c + L), a);
        }
        if (known) keep(a, x, c);
        finish(a, x, c);
      }
    }
    for (int x = 0; x < shape.width; x += edge_rows || x + 2 >= shape.width ? 2 : shape.width - 2) {
      for (int i = 0; i < 4; ++i)
        border_pixel(block, image, y + (i >> 1), x + (i & 1), shape, border[i]);
      for (int c = 0; c < outputs; c += BLOCK) {
        vec a[4][2];
        for (int i = 0; i < 4; ++i) a[i][0] = load(border[i] + c), a[i][1] = load(border[i] + c + L);
        if (known) keep(a, x, c);
        finish(a, x, c);
      }
    }
  }
}

}  // namespace
}  // namespace universeg
