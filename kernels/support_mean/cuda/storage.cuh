// Storage types and memory access: the only place that knows bit patterns, vector widths and the two compilers.
//
// Everything here compiles with nvcc for the device and with a plain C++17 compiler for the host. On the host every
// load and store goes through `audit` (audit.h), which is how borders and indices are checked without a GPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SM_HD __host__ __device__ __forceinline__
#define SM_UNROLL _Pragma("unroll")
#else
#define SM_HD inline
#define SM_UNROLL
#endif

#if !defined(__CUDA_ARCH__)
#include "audit.h"
#endif

namespace universeg {
namespace support_mean {

// Bit patterns of IEEE binary16 and of bfloat16 (the upper half of a float32).
struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};

SM_HD uint32_t float_bits(float x) {
#if defined(__CUDA_ARCH__)
    return __float_as_uint(x);
#else
    uint32_t u;
    std::memcpy(&u, &x, sizeof u);
    return u;
#endif
}

SM_HD float bits_float(uint32_t u) {
#if defined(__CUDA_ARCH__)
    return __uint_as_float(u);
#else
    float x;
    std::memcpy(&x, &u, sizeof x);
    return x;
#endif
}

SM_HD float to_float(float x) { return x; }

SM_HD float to_float(Bfloat x) { return bits_float(static_cast<uint32_t>(x.bits) << 16); }

SM_HD float to_float(Half x) {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(x.bits));
#else
    const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
    const uint32_t exponent = (x.bits >> 10) & 0x1fu, fraction = x.bits & 0x3ffu;
    if (exponent == 0x1fu) return bits_float(sign | 0x7f800000u | (fraction << 13));
    if (exponent != 0) return bits_float(sign | ((exponent + 112u) << 23) | (fraction << 13));
    const float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // subnormal: fraction * 2^-24
    return sign ? -magnitude : magnitude;
#endif
}

template <typename T>
SM_HD T from_float(float x);

template <>
SM_HD float from_float<float>(float x) {
    return x;
}

// Round to nearest, ties to even, as the device's own conversions do; NaN stays NaN.
template <>
SM_HD Bfloat from_float<Bfloat>(float x) {
#if defined(__CUDA_ARCH__)
    return Bfloat{__bfloat16_as_ushort(__float2bfloat16_rn(x))};
#else
    const uint32_t u = float_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return Bfloat{0x7fff};
    return Bfloat{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
#endif
}

template <>
SM_HD Half from_float<Half>(float x) {
#if defined(__CUDA_ARCH__)
    return Half{__half_as_ushort(__float2half_rn(x))};
#else
    const uint32_t u = float_bits(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return Half{0x7fff};
    if (magnitude >= 0x477ff000u) return Half{static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and above: infinity
    if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, one unit is 2^-24
        const float units = std::nearbyintf(bits_float(magnitude) * 16777216.0f);
        return Half{static_cast<uint16_t>(sign | static_cast<uint32_t>(units))};
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return Half{static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
#endif
}

template <int Bytes>
struct Bits;
#if defined(__CUDACC__)
template <>
struct Bits<16> {
    using type = uint4;
};
template <>
struct Bits<8> {
    using type = uint2;
};
template <>
struct Bits<4> {
    using type = unsigned int;
};
template <>
struct Bits<2> {
    using type = unsigned short;
};
#endif

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
    T value[N];
};

// N elements at `at` as one access; `at` must be a multiple of N * sizeof(T) bytes.
template <int N, typename T>
SM_HD Pack<T, N> load(const T* at) {
    Pack<T, N> out;
#if defined(__CUDA_ARCH__)
    using Raw = typename Bits<static_cast<int>(sizeof(T)) * N>::type;
    const Raw raw = __ldg(reinterpret_cast<const Raw*>(at));
    memcpy(&out, &raw, sizeof raw);
#else
    audit::read(at, sizeof(T) * N);
    std::memcpy(&out, at, sizeof(T) * N);
#endif
    return out;
}

template <int N, typename T>
SM_HD void store(T* at, const Pack<T, N>& value) {
#if defined(__CUDA_ARCH__)
    using Raw = typename Bits<static_cast<int>(sizeof(T)) * N>::type;
    Raw raw;
    memcpy(&raw, &value, sizeof raw);
    __stwb(reinterpret_cast<Raw*>(at), raw);  // a plain assignment may be taken apart into 4-byte stores
#else
    audit::write(at, sizeof(T) * N);
    std::memcpy(at, &value, sizeof(T) * N);
#endif
}

template <typename T>
SM_HD float load_one(const T* at) {
    return to_float(load<1>(at).value[0]);
}

template <typename T>
SM_HD void store_one(T* at, float value) {
    Pack<T, 1> out;
    out.value[0] = from_float<T>(value);
    store<1>(at, out);
}

}  // namespace support_mean
}  // namespace universeg
