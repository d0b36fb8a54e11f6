// What one element costs and where it lies: the arithmetic and the index functions that every kernel shares.
#pragma once

#include "storage.cuh"

namespace universeg {
namespace support_mean {

// One call as the kernels see it; sizes are elements, arrays are row-major and dense. See support_mean.h for the axes.
struct Args {
    int64_t queries, support_queries, sets, query_sets, entries, channels, height, width;  // B Bs K Kq S C H W
    float slope;
    uint32_t tiles;   // blocks that cover one (set, group of queries)
    uint32_t groups;  // groups of queries
    const void* support;
    const void* query;
    const float* weights;      // (K, S)
    const float* convolution;  // (C, 2, 5, 5), fused form only
    const float* border;       // (C, 2, 24), fused form only
    void* mean;
    void* pooled_mean;
    void* pooled;
    void* activated;  // null: not wanted
};

// Where a thread stands: block number, position in the block, block size. The host fills it from loops.
struct Place {
    uint32_t block;
    int x, y;
    int size_x, size_y;
};

// For a slope in (0, 1], which check_problem demands, the larger of x and slope * x: one instruction less than a
// comparison and a selection, and NaN and infinities come out the same.
SM_HD float leaky_relu(float x, float slope) {
    const float scaled = slope * x;
#if defined(__CUDA_ARCH__)
    return fmaxf(x, scaled);
#else
    return x > scaled ? x : scaled;
#endif
}

// Larger of two; NaN if either is NaN, as PyTorch's max_pool2d and NumPy's maximum have it.
SM_HD float max_or_nan(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float out;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(out) : "f"(a), "f"(b));
    return out;
#else
    return (a > b || a != a) ? a : b;
#endif
}

// acc + weight * x with one rounding, on both compilers.
SM_HD float weigh(float acc, float weight, float x) {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(weight, x, acc);
#else
    return std::fma(weight, x, acc);
#endif
}

SM_HD int64_t plane(const Args& a) { return a.channels * a.height * a.width; }

// Elements from one pixel to the next in a row, and from a row to the next, of a (C, H, W) map. Hwc: of a (H, W, C) map.
// Int: int where the plan has seen to it that a row has fewer than 2^30 elements, which spares registers.
template <typename Int>
struct Steps {
    Int column, row;
};
template <bool Hwc, typename Int>
SM_HD Steps<Int> steps(const Args& a, int64_t width) {
    const Int channels = static_cast<Int>(a.channels), across = static_cast<Int>(width);
    return Hwc ? Steps<Int>{channels, across * channels} : Steps<Int>{1, across};
}

SM_HD int64_t pooled_plane(const Args& a) { return a.channels * (a.height / 2) * (a.width / 2); }

// First element of a (C, H, W) map of support_term, query_term and of the outputs. All in 64 bits: S = 256 entries of
// 64 x 128 x 128 are 2^28 elements, and eight queries of them no longer fit in 31 bits.
SM_HD int64_t support_offset(const Args& a, int64_t b, int64_t k, int64_t s) {
    return (((a.support_queries == 1 ? 0 : b) * a.sets + k) * a.entries + s) * plane(a);
}
SM_HD int64_t query_offset(const Args& a, int64_t b, int64_t k) {
    return (b * a.query_sets + (a.query_sets == 1 ? 0 : k)) * plane(a);
}
SM_HD int64_t entry_offset(const Args& a, int64_t b, int64_t k, int64_t s, int64_t map) {
    return ((b * a.sets + k) * a.entries + s) * map;
}
SM_HD int64_t mean_offset(const Args& a, int64_t b, int64_t k, int64_t map) { return (b * a.sets + k) * map; }

// Block number -> tile, set and first query. Queries run fastest: blocks that read the same support maps are
// neighbours in time, so that what does not fit in a group is at least found in the L2 cache.
struct BlockIndex {
    int64_t tile, set, group;
};
SM_HD BlockIndex block_index(const Args& a, uint32_t block) {
    const uint32_t group = block % a.groups, rest = block / a.groups;
    return {static_cast<int64_t>(rest % a.tiles), static_cast<int64_t>(rest / a.tiles), static_cast<int64_t>(group)};
}

}  // namespace support_mean
}  // namespace universeg
