// What goes row by row: the few-channel convolutions at both ends, upsampling and pooling; included by kernels_impl.h.
#pragma once

#include "vectors_impl.h"

namespace universeg {
namespace {

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

template <class Value>
void upsample(const Value* in, const Shape& from, int y, Value* out, const Shape& to) {
  const float step_y = to.height > 1 ? (from.height - 1.f) / (to.height - 1.f) : 0.f;
  const float step_x = to.width > 1 ? (from.width - 1.f) / (to.width - 1.f) : 0.f;
  const int y0 = (int)(y * step_y), y1 = y0 + 1 < from.height ? y0 + 1 : y0;
  const vec fy = splat(y * step_y - y0);
  const Value* top = in + ((y0 + 1L) * from.pitch + 1) * from.channels;
  const Value* bottom = in + ((y1 + 1L) * from.pitch + 1) * from.channels;
  for (int x = 0; x < to.width; ++x) {
    const int x0 = (int)(x * step_x), x1 = x0 + 1 < from.width ? x0 + 1 : x0;
    const vec fx = splat(x * step_x - x0);
    Value* target = out + ((y + 1L) * to.pitch + x + 1) * to.channels;
    for (int c = 0; c < to.channels; c += L) {
      const vec a = load(top + (long)x0 * from.channels + c), b = load(top + (long)x1 * from.channels + c);
      const vec d = load(bottom + (long)x0 * from.channels + c), f = load(bottom + (long)x1 * from.channels + c);
      const vec upper = a + fx * (b - a), lower = d + fx * (f - d);
      store(target + c, upper + fy * (lower - upper));
    }
  }
}

void upsample_row(const void* in, const Shape& from, int y, void* out, const Shape& to) {
  if (from.bytes)
    upsample(static_cast<const signed char*>(in), from, y, static_cast<signed char*>(out), to);
  else
    upsample(static_cast<const float*>(in), from, y, static_cast<float*>(out), to);
}

template <class Value>
void pool(const Value* in, const Shape& from, int y, Value* out, const Shape& to) {
  const Value* p = in + ((2 * y + 1L) * from.pitch + 1) * from.channels;
  const long down = (long)from.pitch * from.channels, right = from.channels;
  for (int x = 0; x < to.width; ++x, p += 2 * right) {
    Value* target = out + ((y + 1L) * to.pitch + x + 1) * to.channels;
    for (int c = 0; c < to.channels; c += L)
      store(target + c, larger(larger(load(p + c), load(p + right + c)), larger(load(p + down + c), load(p + down + right + c))));
  }
}

void pool_row(const void* in, const Shape& from, int y, void* out, const Shape& to) {
  if (from.bytes)
    pool(static_cast<const signed char*>(in), from, y, static_cast<signed char*>(out), to);
  else
    pool(static_cast<const float*>(in), from, y, static_cast<float*>(out), to);
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
