// Vectors of one size (VECTOR_BYTES) in GCC's vector types, and the values of maps to and from them; included by kernels_impl.h.
#pragma once

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "kernels.h"

#ifndef VECTOR_BYTES
#error "define VECTOR_BYTES before including this file"
#endif

namespace universeg {
namespace {

typedef float vec __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int integers __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef short halves __attribute__((vector_size(VECTOR_BYTES / 2)));
typedef signed char steps __attribute__((vector_size(VECTOR_BYTES / 4), may_alias));

constexpr int L = VECTOR_BYTES / 4;
constexpr int BLOCK = 2 * L;  // outputs of the inner product's register tile

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }

// What GCC makes poor code of is written for the instruction set; the generic forms give the same to the bit. `whole` rounds to
// the nearest whole number, ties to even, and is given values of -127 to 127.
#if VECTOR_BYTES == 64 && defined(__AVX512F__)
inline vec larger(vec a, vec b) { return _mm512_max_ps(a, b); }
inline vec smaller(vec a, vec b) { return _mm512_min_ps(a, b); }
inline vec load(const signed char* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(p)))); }
inline steps whole(vec x) { return (steps)_mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)); }
#elif VECTOR_BYTES == 32 && defined(__AVX2__)
inline vec larger(vec a, vec b) { return _mm256_max_ps(a, b); }
inline vec smaller(vec a, vec b) { return _mm256_min_ps(a, b); }
inline vec load(const signed char* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))); }
inline steps whole(vec x) {
  const __m256i numbers = _mm256_cvtps_epi32(x);
  const __m128i pairs = _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
  return (steps)_mm_cvtsi128_si64(_mm_packs_epi16(pairs, pairs));
}
#else
inline vec larger(vec a, vec b) { return a > b ? a : b; }
inline vec smaller(vec a, vec b) { return a < b ? a : b; }
inline vec load(const signed char* p) { return __builtin_convertvector(*reinterpret_cast<const steps*>(p), vec); }
inline steps whole(vec x) {
  // Behind the point of 1.5 * 2^23 there are no digits left: the sum is rounded, and its lowest byte is the number.
  return __builtin_convertvector(__builtin_convertvector((integers)(x + splat(12582912.f)), halves), steps);
}
#endif

inline vec leaky(vec x, vec slope) { return larger(x, x * slope); }  // slope lies between 0 and 1
inline void store(signed char* p, vec x) { *reinterpret_cast<steps*>(p) = whole(smaller(larger(x, splat(-127.f)), splat(127.f))); }

// Value `at` of a map of either type.
inline void put(void* map, bool bytes, long at, vec x) {
  if (bytes)
    store(static_cast<signed char*>(map) + at, x);
  else
    store(static_cast<float*>(map) + at, x);
}

}  // namespace
}  // namespace universeg
