// Form b, SupportMean: add, LeakyReLU, optional write of the activated maps, weighted mean over the support.
//
// Nothing here knows rows, columns or channels: a map is one run of P = C*H*W elements, in any layout. Numbered from plain to fast;
// README.md says what each step gains. `Body::...` is the kernel; the __global__ wrappers stand in device_run.cuh.
#pragma once

#include "arithmetic.cuh"

namespace universeg {
namespace support_mean {

constexpr int kThreads = 256;
constexpr int kAhead = 4;  // independent loads a thread has in flight before it uses the first

// Blocks that a multiprocessor must have registers for: of kernels 2 to 5 with vectors of V elements and Q queries a
// thread, A where activated is written. The compiler keeps to it, and the plan counts on it.
constexpr int mean_resident(int v, int q, bool a) { return q > 1 ? 2 : v > 4 ? (a ? 2 : 3) : 4; }

// 1. A thread owns one element of the mean and walks over the support. Any shape.
template <typename T>
struct Mean1 {
    static SM_HD void run(const Args& a, const Place& at) {
        const int64_t p_count = plane(a), i = static_cast<int64_t>(at.block) * at.size_x + at.x;
        if (i >= a.queries * a.sets * p_count) return;
        const int64_t p = i % p_count, k = i / p_count % a.sets, b = i / p_count / a.sets;
        const T* support = static_cast<const T*>(a.support) + support_offset(a, b, k, 0) + p;
        T* activated = static_cast<T*>(a.activated);
        const float query = load_one(static_cast<const T*>(a.query) + query_offset(a, b, k) + p);
        float sum = 0.0f;
        for (int64_t s = 0; s < a.entries; ++s) {
            const float x = leaky_relu(load_one(support + s * p_count) + query, a.slope);
            if (activated != nullptr) store_one(activated + entry_offset(a, b, k, s, p_count) + p, x);
            sum = weigh(sum, load_one(a.weights + k * a.entries + s), x);
        }
        store_one(static_cast<T*>(a.mean) + mean_offset(a, b, k, p_count) + p, sum);
    }
};

// One vector of one support entry for one query: activate, write if wanted, add to the sum.
template <bool A, typename T, int V>
SM_HD void mean_step(const Args& a, const Pack<T, V>& support, const Pack<T, V>& query, float weight, T* activated,
                     float (&sum)[V]) {
    Pack<T, V> out;
    SM_UNROLL
    for (int v = 0; v < V; ++v) {
        const float x = leaky_relu(to_float(support.value[v]) + to_float(query.value[v]), a.slope);
        sum[v] = weigh(sum[v], weight, x);
        if (A) out.value[v] = from_float<T>(x);
    }
    if (A && activated != nullptr) store<V>(activated, out);
}

// 2 to 5. A thread owns V elements of the mean and keeps kAhead loads in flight. Needs P to be a multiple of V.
//   2: one slice (size_y = 1), one query a thread: each thread walks over the whole support.
//   3: the support is split over the block's y, so that small maps too give every multiprocessor work. Partial sums
//      meet in shared memory and are added in the order of y: the result never depends on which warp was first.
//   4: a thread serves Q queries with one read of the support term that they share.
//   5: as 3 with vectors of 8 bytes instead of 16: more threads, each with fewer registers.
// A: the activated maps are written. Only 2 and 3 can: where they are, they are most of the bytes, and neither a shared
// read nor narrower vectors save any of those.
template <typename T, int V, int Q, bool A>
struct MeanVector {
    static constexpr int kResident = mean_resident(V, Q, A);
    float sum[Q][V];

    // Floats of shared memory that a block of `threads` threads needs.
    static constexpr size_t shared_floats(int threads) { return static_cast<size_t>(threads) * Q * V; }

    SM_HD void accumulate(const Args& a, const Place& at) {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            SM_UNROLL
            for (int v = 0; v < V; ++v) sum[q][v] = 0.0f;
        }
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t p_count = plane(a), p = (at_block.tile * at.size_x + at.x) * V, k = at_block.set;
        if (p >= p_count) return;
        const int64_t first = at_block.group * Q;
        const T* support = static_cast<const T*>(a.support) + support_offset(a, first, k, 0) + p;
        const float* weights = a.weights + k * a.entries;
        Pack<T, V> query[Q];
        T* activated[Q];
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            // A group may reach past the last query: it then repeats the last one and stores nothing for it.
            const int64_t b = first + q < a.queries ? first + q : a.queries - 1;
            query[q] = load<V>(static_cast<const T*>(a.query) + query_offset(a, b, k) + p);
            activated[q] = !A || first + q >= a.queries
                               ? nullptr
                               : static_cast<T*>(a.activated) + entry_offset(a, b, k, 0, p_count) + p;
        }
        const int64_t stride = at.size_y;
        int64_t s = at.y;
        for (; s + (kAhead - 1) * stride < a.entries; s += kAhead * stride) {
            Pack<T, V> ahead[kAhead];
            SM_UNROLL
            for (int j = 0; j < kAhead; ++j) ahead[j] = load<V>(support + (s + j * stride) * p_count);
            SM_UNROLL
            for (int j = 0; j < kAhead; ++j) step(a, ahead[j], query, weights, activated, s + j * stride, p_count);
        }
        for (; s < a.entries; s += stride)
            step(a, load<V>(support + s * p_count), query, weights, activated, s, p_count);
    }

    SM_HD void step(const Args& a, const Pack<T, V>& support, const Pack<T, V> (&query)[Q], const float* weights,
                    T* const (&activated)[Q], int64_t s, int64_t p_count) {
        const float weight = load_one(weights + s);
        SM_UNROLL
        for (int q = 0; q < Q; ++q)
            mean_step<A>(a, support, query[q], weight,
                         activated[q] == nullptr ? nullptr : activated[q] + s * p_count, sum[q]);
    }

    // With one slice there is nothing to combine: each thread writes its own sums.
    SM_HD void write(const Args& a, const Place& at) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) write_query(a, at, q, sum[q]);
    }

    SM_HD void write_query(const Args& a, const Place& at, int q, const float (&total)[V]) const {
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t p_count = plane(a), p = (at_block.tile * at.size_x + at.x) * V, b = at_block.group * Q + q;
        if (p >= p_count || b >= a.queries) return;
        Pack<T, V> out;
        SM_UNROLL
        for (int v = 0; v < V; ++v) out.value[v] = from_float<T>(total[v]);
        store<V>(static_cast<T*>(a.mean) + mean_offset(a, b, at_block.set, p_count) + p, out);
    }

    // Before the barrier. x runs fastest, so that a warp's accesses fall into different banks.
    SM_HD void publish(const Place& at, float* shared) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            SM_UNROLL
            for (int v = 0; v < V; ++v) shared[((at.y * Q + q) * V + v) * at.size_x + at.x] = sum[q][v];
        }
    }

    // After the barrier: thread y finishes the queries y, y + size_y, ...
    SM_HD void finish(const Args& a, const Place& at, const float* shared) const {
        for (int q = at.y; q < Q; q += at.size_y) {
            float total[V];
            SM_UNROLL
            for (int v = 0; v < V; ++v) {
                total[v] = 0.0f;
                for (int y = 0; y < at.size_y; ++y) total[v] += shared[((y * Q + q) * V + v) * at.size_x + at.x];
            }
            write_query(a, at, q, total);
        }
    }
};

}  // namespace support_mean
}  // namespace universeg
