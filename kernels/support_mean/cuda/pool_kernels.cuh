// Form a, SupportMeanPool: as form b, and a 2x2 max pool of the activated maps with its own weighted mean.
//
// A thread owns a strip: two rows, V columns, one channel. Both rows of a pooled row are thus in one thread's
// registers, the full-resolution map is read once, and neither it nor its activated form is ever written.
// An odd last row or column counts in the mean and not in the pool (floor).
#pragma once

#include "mean_kernels.cuh"

namespace universeg {
namespace support_mean {

// Position of a strip, from its number among the C * ceil(H/2) * ceil(W/V) strips of a map.
struct Strip {
    int64_t channel, row, column;  // row and column of its upper left element
};

SM_HD int64_t strip_count(const Args& a, int v) {
    return a.channels * ((a.height + 1) / 2) * ((a.width + v - 1) / v);
}

SM_HD Strip strip_at(const Args& a, int v, int64_t number) {
    const int64_t across = (a.width + v - 1) / v, pairs = (a.height + 1) / 2;
    return {number / across / pairs, number / across % pairs * 2, number % across * v};
}

SM_HD int64_t strip_offset(const Args& a, const Strip& t) { return (t.channel * a.height + t.row) * a.width + t.column; }

SM_HD int64_t strip_pooled_offset(const Args& a, const Strip& t) {
    return (t.channel * (a.height / 2) + t.row / 2) * (a.width / 2) + t.column / 2;
}

// 1. A thread owns one 2x2 square, element by element. Any shape.
template <typename T>
struct Pool1 {
    static SM_HD void run(const Args& a, const Place& at) {
        const int64_t strips = strip_count(a, 2), i = static_cast<int64_t>(at.block) * at.size_x + at.x;
        if (i >= a.queries * a.sets * strips) return;
        const int64_t k = i / strips % a.sets, b = i / strips / a.sets;
        const int64_t p_count = plane(a), pooled_count = pooled_plane(a);
        const Strip strip = strip_at(a, 2, i % strips);
        const int64_t p = strip_offset(a, strip), pooled_p = strip_pooled_offset(a, strip);
        const int rows = strip.row + 1 < a.height ? 2 : 1, columns = strip.column + 1 < a.width ? 2 : 1;
        const bool whole = rows == 2 && columns == 2;
        const T* support = static_cast<const T*>(a.support) + support_offset(a, b, k, 0) + p;
        const T* query = static_cast<const T*>(a.query) + query_offset(a, b, k) + p;
        T* activated = static_cast<T*>(a.activated);
        float sum[2][2] = {}, pooled_sum = 0.0f;
        for (int64_t s = 0; s < a.entries; ++s) {
            const float weight = load_one(a.weights + k * a.entries + s);
            float largest = 0.0f;
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < columns; ++c) {
                    const int64_t within = r * a.width + c;
                    const float x =
                        leaky_relu(load_one(support + s * p_count + within) + load_one(query + within), a.slope);
                    if (activated != nullptr)
                        store_one(activated + entry_offset(a, b, k, s, p_count) + p + within, x);
                    sum[r][c] = weigh(sum[r][c], weight, x);
                    largest = r + c == 0 ? x : max_or_nan(largest, x);
                }
            if (!whole) continue;
            store_one(static_cast<T*>(a.pooled) + entry_offset(a, b, k, s, pooled_count) + pooled_p, largest);
            pooled_sum = weigh(pooled_sum, weight, largest);
        }
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < columns; ++c)
                store_one(static_cast<T*>(a.mean) + mean_offset(a, b, k, p_count) + p + r * a.width + c, sum[r][c]);
        if (whole)
            store_one(static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_count) + pooled_p, pooled_sum);
    }
};

// Sums of one strip for one query, and the step that adds one support entry to them.
template <typename T, int V>
struct StripSums {
    float full[2][V];
    float pooled[V / 2];

    SM_HD void clear() {
        SM_UNROLL
        for (int v = 0; v < V; ++v) full[0][v] = full[1][v] = pooled[v / 2] = 0.0f;
    }

    // `two`: the strip has a second row. `activated` and `pooled_out` point to this entry's strip, or are null
    // where nothing is to be written (a strip of one row pools nothing).
    template <bool A>
    SM_HD void step(const Args& a, const Pack<T, V> (&support)[2], const Pack<T, V> (&query)[2], float weight, bool two,
                    T* activated, T* pooled_out) {
        float largest[V / 2] = {};
        SM_UNROLL
        for (int r = 0; r < 2; ++r) {
            Pack<T, V> out;
            SM_UNROLL
            for (int v = 0; v < V; ++v) {
                const float x = leaky_relu(to_float(support[r].value[v]) + to_float(query[r].value[v]), a.slope);
                full[r][v] = weigh(full[r][v], weight, x);
                if (A) out.value[v] = from_float<T>(x);
                largest[v / 2] = r == 0 && v % 2 == 0 ? x : max_or_nan(largest[v / 2], x);
            }
            if (A && activated != nullptr && (r == 0 || two)) store<V>(activated + r * a.width, out);
        }
        Pack<T, V / 2> out;
        SM_UNROLL
        for (int v = 0; v < V / 2; ++v) {
            pooled[v] = weigh(pooled[v], weight, largest[v]);
            out.value[v] = from_float<T>(largest[v]);
        }
        if (pooled_out != nullptr) store<V / 2>(pooled_out, out);
    }

    SM_HD void write(const Args& a, const Strip& strip, int64_t b, int64_t k) const {
        T* mean = static_cast<T*>(a.mean) + mean_offset(a, b, k, plane(a)) + strip_offset(a, strip);
        const bool two = strip.row + 1 < a.height;
        SM_UNROLL
        for (int r = 0; r < 2; ++r) {
            Pack<T, V> out;
            SM_UNROLL
            for (int v = 0; v < V; ++v) out.value[v] = from_float<T>(full[r][v]);
            if (r == 0 || two) store<V>(mean + r * a.width, out);
        }
        Pack<T, V / 2> out;
        SM_UNROLL
        for (int v = 0; v < V / 2; ++v) out.value[v] = from_float<T>(pooled[v]);
        if (two)
            store<V / 2>(static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_plane(a)) +
                             strip_pooled_offset(a, strip),
                         out);
    }
};

// Both rows of a strip; a missing second row repeats the first, whose values are then ignored.
template <typename T, int V>
SM_HD void load_strip(const T* at, int64_t row_stride, Pack<T, V> (&out)[2]) {
    out[0] = load<V>(at);
    out[1] = load<V>(at + row_stride);
}

// 2 to 5. Strips of vectors with two entries (four vectors) in flight; one slice, split over the block's y, Q queries for
// one read, vectors of 8 bytes, A: as in MeanVector. Needs W to be a multiple of V.
template <typename T, int V, int Q, bool A>
struct PoolVector {
    static constexpr int N = 2 * V + V / 2;  // sums of a strip
    static constexpr int kPairs = 2;         // entries in flight, two rows each
    // Blocks that a multiprocessor must have registers for.
    static constexpr int kResident = Q > 1 || V > 4 || A ? 2 : V * sizeof(T) == 16 ? 3 : 4;
    StripSums<T, V> sums[Q];

    static constexpr size_t shared_floats(int threads) { return static_cast<size_t>(threads) * Q * N; }

    SM_HD void accumulate(const Args& a, const Place& at) {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) sums[q].clear();
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t number = at_block.tile * at.size_x + at.x, k = at_block.set, first = at_block.group * Q;
        if (number >= strip_count(a, V)) return;
        const Strip strip = strip_at(a, V, number);
        const int64_t p = strip_offset(a, strip), p_count = plane(a);
        const bool two = strip.row + 1 < a.height;
        const int64_t row_stride = two ? a.width : 0;
        const T* support = static_cast<const T*>(a.support) + support_offset(a, first, k, 0) + p;
        const int64_t pooled_count = pooled_plane(a);
        Pack<T, V> query[Q][2];
        T *activated[Q], *pooled[Q];
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            // A group may reach past the last query: it then repeats the last one and stores nothing for it.
            const bool real = first + q < a.queries;
            const int64_t b = real ? first + q : a.queries - 1;
            load_strip<T, V>(static_cast<const T*>(a.query) + query_offset(a, b, k) + p, row_stride, query[q]);
            activated[q] = !A || !real
                               ? nullptr
                               : static_cast<T*>(a.activated) + entry_offset(a, b, k, 0, p_count) + p;
            pooled[q] = !real || !two ? nullptr
                                      : static_cast<T*>(a.pooled) + entry_offset(a, b, k, 0, pooled_count) +
                                            strip_pooled_offset(a, strip);
        }
        const float* weights = a.weights + k * a.entries;
        const int64_t stride = at.size_y;
        int64_t s = at.y;
        for (; s + (kPairs - 1) * stride < a.entries; s += kPairs * stride) {
            Pack<T, V> ahead[kPairs][2];
            SM_UNROLL
            for (int j = 0; j < kPairs; ++j)
                load_strip<T, V>(support + (s + j * stride) * p_count, row_stride, ahead[j]);
            SM_UNROLL
            for (int j = 0; j < kPairs; ++j) {
                const int64_t e = s + j * stride;
                step(a, ahead[j], query, load_one(weights + e), two, activated, e * p_count, pooled, e * pooled_count);
            }
        }
        for (; s < a.entries; s += stride) {
            Pack<T, V> rows[2];
            load_strip<T, V>(support + s * p_count, row_stride, rows);
            step(a, rows, query, load_one(weights + s), two, activated, s * p_count, pooled, s * pooled_count);
        }
    }

    SM_HD void step(const Args& a, const Pack<T, V> (&rows)[2], const Pack<T, V> (&query)[Q][2], float weight, bool two,
                    T* const (&activated)[Q], int64_t offset, T* const (&pooled)[Q], int64_t pooled_offset) {
        SM_UNROLL
        for (int q = 0; q < Q; ++q)
            sums[q].template step<A>(a, rows, query[q], weight, two,
                                     activated[q] == nullptr ? nullptr : activated[q] + offset,
                                     pooled[q] == nullptr ? nullptr : pooled[q] + pooled_offset);
    }

    // With one slice there is nothing to combine: each thread writes its own sums.
    SM_HD void write(const Args& a, const Place& at) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) write_query(a, at, q, sums[q]);
    }

    SM_HD void write_query(const Args& a, const Place& at, int q, const StripSums<T, V>& total) const {
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t number = at_block.tile * at.size_x + at.x, b = at_block.group * Q + q;
        if (number < strip_count(a, V) && b < a.queries) total.write(a, strip_at(a, V, number), b, at_block.set);
    }

    SM_HD void publish(const Place& at, float* shared) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            SM_UNROLL
            for (int n = 0; n < N; ++n)
                shared[((at.y * Q + q) * N + n) * at.size_x + at.x] =
                    n < 2 * V ? sums[q].full[n / V % 2][n % V] : sums[q].pooled[n % (V / 2)];
        }
    }

    SM_HD void finish(const Args& a, const Place& at, const float* shared) const {
        for (int q = at.y; q < Q; q += at.size_y) {
            StripSums<T, V> total;
            total.clear();
            SM_UNROLL
            for (int n = 0; n < N; ++n) {
                float& to = n < 2 * V ? total.full[n / V % 2][n % V] : total.pooled[n % (V / 2)];
                for (int y = 0; y < at.size_y; ++y) to += shared[((y * Q + q) * N + n) * at.size_x + at.x];
            }
            write_query(a, at, q, total);
        }
    }
};

}  // namespace support_mean
}  // namespace universeg
