// Vectors of one size (VECTOR_BYTES) in GCC's vector types, and the values of maps to and from them; included by kernels_impl.h.
#pragma once

#include "kernels.h"

#ifndef VECTOR_BYTES
#error "define VECTOR_BYTES before including this file"
#endif

namespace universeg {
namespace {

typedef float vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int integers __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef signed char steps __attribute__((vector_size(VECTOR_BYTES / 4), may_alias));

constexpr int L = VECTOR_BYTES / 4;
constexpr int BLOCK = 2 * L;  // outputs of the inner product's register tile

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline vec leaky(vec x, vec slope) { return larger(x, x * slope); }  // slope lies between 0 and 1

inline vec load(const signed char* p) { return __builtin_convertvector(*reinterpret_cast<const steps*>(p), vec); }

// Rounded to the nearest whole number, ties to even, of -127 to 127. Behind the point of 1.5 * 2^23 there are no digits left: the sum
// is rounded, and its lowest byte is the number.
inline void store(signed char* p, vec x) {
  x = larger(splat(-127.f), x);
  x = x < splat(127.f) ? x : splat(127.f);
  const vec sum = x + splat(12582912.f);
  *reinterpret_cast<steps*>(p) = __builtin_convertvector(reinterpret_cast<const integers&>(sum), steps);
}

// Value `at` of a map of either type.
inline void put(void* map, bool bytes, long at, vec x) {
  if (bytes)
    store(static_cast<signed char*>(map) + at, x);
  else
    store(static_cast<float*>(map) + at, x);
}

}  // namespace
}  // namespace universeg
