// mma.sync for Conv3: on the device the instruction, on the host the same product from the 32 lanes' words.
//
// Layout (PTX, m16n8k16 and m16n8k8 with 16-bit inputs): with g = lane / 4 and t = lane % 4, a lane's words of the rows'
// matrix are (row g, k 2t..2t+1), (row g + 8, same k), and for k16 the same with k + 8; of the columns' matrix
// (k 2t..2t+1, column g) and for k16 k + 8; of the results (row g, columns 2t..2t+1), (row g + 8, same columns).
#pragma once

#include "mma_kernels.cuh"

namespace universeg {
namespace support_mean {

#if defined(__CUDACC__)

template <typename T>
__device__ __forceinline__ void mma_wide(float (&d)[4], const uint32_t* a, const uint32_t* b);
template <typename T>
__device__ __forceinline__ void mma_narrow(float (&d)[4], const uint32_t* a, uint32_t b);

// Before sm_80 there is no such instruction; support_mean_run never launches the kernel there.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define SM_MMA(type, word)                                                                                              \
    template <>                                                                                                        \
    __device__ __forceinline__ void mma_wide<type>(float(&d)[4], const uint32_t* a, const uint32_t* b) {               \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." word "." word ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "              \
                     "{%8,%9}, {%0,%1,%2,%3};"                                                                         \
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                           \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                       \
    }                                                                                                                  \
    template <>                                                                                                        \
    __device__ __forceinline__ void mma_narrow<type>(float(&d)[4], const uint32_t* a, uint32_t b) {                    \
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32." word "." word ".f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "               \
                     "{%0,%1,%2,%3};"                                                                                  \
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                           \
            : "r"(a[0]), "r"(a[1]), "r"(b));                                                                           \
    }
#else
#define SM_MMA(type, word)                                                                              \
    template <>                                                                                        \
    __device__ __forceinline__ void mma_wide<type>(float(&)[4], const uint32_t*, const uint32_t*) {    \
        __trap();                                                                                      \
    }                                                                                                  \
    template <>                                                                                        \
    __device__ __forceinline__ void mma_narrow<type>(float(&)[4], const uint32_t*, uint32_t) {         \
        __trap();                                                                                      \
    }
#endif
SM_MMA(Half, "f16")
SM_MMA(Bfloat, "bf16")
#undef SM_MMA

template <typename T>
__device__ __forceinline__ void multiply(const uint32_t (&fragment)[2][MmaTile::kFragment], const MmaTaps& taps,
                                         MmaTerm& term) {
    // The accumulators in turn: a product never waits for the one before it, but for the fourth before it.
#pragma unroll
    for (int step = 0; step < MmaTile::kSteps; ++step) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
#pragma unroll
                for (int n = 0; n < 2; ++n)
                    mma_wide<T>(term[p][n], &fragment[p][step * 4], taps.wide[step][n][part]);
            }
        }
    }
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
        for (int n = 0; n < 2; ++n) mma_narrow<T>(term[p][n], &fragment[p][MmaTile::kSteps * 4], taps.last[n]);
    }
}

#endif  // __CUDACC__

// The 32 lanes' view of one product on the host: rows from `rows` (4 or 2 words a lane), columns from `columns` (2 or 1).
template <typename T, int Words>
inline void mma_on_host(float* const (&d)[32], const uint32_t* const (&rows)[32], const uint32_t* const (&columns)[32]) {
    constexpr int kInner = Words == 4 ? 16 : 8;
    float a[16][kInner], b[kInner][8];
    const auto part = [](uint32_t word, int i) { return to_float(T{static_cast<uint16_t>(i == 0 ? word : word >> 16)}); };
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 2; ++i) {
            const int g = lane / 4, t = lane % 4;
            for (int w = 0; w < Words; ++w) a[g + w % 2 * 8][t * 2 + i + w / 2 * 8] = part(rows[lane][w], i);
            for (int w = 0; w < Words / 2; ++w) b[t * 2 + i + w * 8][g] = part(columns[lane][w], i);
        }
    for (int lane = 0; lane < 32; ++lane)
        for (int v = 0; v < 4; ++v) {
            const int r = lane / 4 + v / 2 * 8, c = lane % 4 * 2 + v % 2;
            for (int k = 0; k < kInner; ++k) d[lane][v] = weigh(d[lane][v], a[r][k], b[k][c]);
        }
}

}  // namespace support_mean
}  // namespace universeg
