// Form a, SupportMeanPool: as form b, and a 2x2 max pool of the activated maps with its own weighted mean.
//
// A thread owns a strip: two rows and V columns of one channel or, with channels last, two rows and two columns of V
// channels. All four pixels of a pooled one are thus in one thread's registers, the full-resolution map is read once, and
// neither it nor its activated form is ever written. An odd last row or column counts in the mean and not in the pool
// (floor). Both layouts add up in the same order: the same numbers come out, bit by bit, for the same slices.
#pragma once

#include "mean_kernels.cuh"
#include "strips.cuh"

namespace universeg {
namespace support_mean {

// As mean_resident, of form a. `bytes` is the size of an element. With channels last a strip has twice the sums, which
// three blocks have no registers for.
constexpr int pool_resident(int v, int bytes, int q, bool a, bool hwc) {
    return hwc || q > 1 || v > 4 || a ? 2 : v * bytes == 16 ? 3 : 4;
}

// 1. A thread owns one 2x2 square of one channel, element by element. Any shape.
template <typename T, bool Hwc>
struct Pool1 {
    static SM_HD void run(const Args& a, const Place& at) {
        const int64_t squares = Hwc ? strip_count<1, true>(a) : strip_count<2, false>(a);
        const int64_t i = static_cast<int64_t>(at.block) * at.size_x + at.x;
        if (i >= a.queries * a.sets * squares) return;
        const int64_t k = i / squares % a.sets, b = i / squares / a.sets;
        const int64_t p_count = plane(a), pooled_count = pooled_plane(a);
        const Strip strip = Hwc ? strip_at<1, true>(a, i % squares) : strip_at<2, false>(a, i % squares);
        const int64_t p = strip_offset<Hwc>(a, strip), pooled_p = strip_pooled_offset<Hwc>(a, strip);
        const Steps<int64_t> to = steps<Hwc, int64_t>(a, a.width);
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
                    const int64_t within = r * to.row + c * to.column;
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
                store_one(static_cast<T*>(a.mean) + mean_offset(a, b, k, p_count) + p + r * to.row + c * to.column,
                          sum[r][c]);
        if (whole)
            store_one(static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_count) + pooled_p, pooled_sum);
    }
};

// Which of a strip's packs are there: those of a missing second row or column repeat the first, and are ignored.
template <int V, bool Hwc>
struct StripEdge {
    bool two_rows, two_columns;
    SM_HD StripEdge(const Args& a, const Strip& t)
        : two_rows(t.row + 1 < a.height), two_columns(!Hwc || t.column + 1 < a.width) {}
    SM_HD bool real(int p) const {
        using S = StripShape<V, Hwc>;
        return (S::row(p) == 0 || two_rows) && (S::column(p) == 0 || two_columns);
    }
    SM_HD bool whole() const { return two_rows && two_columns; }
};

// Sums of one strip for one query, and the step that adds one support entry to them.
template <typename T, int V, bool Hwc>
struct StripSums {
    using S = StripShape<V, Hwc>;
    float full[S::kPacks][V];
    float pooled[S::kPooled];

    SM_HD void clear() {
        SM_UNROLL
        for (int v = 0; v < V; ++v) {
            SM_UNROLL
            for (int p = 0; p < S::kPacks; ++p) full[p][v] = 0.0f;
            pooled[S::pooled(v)] = 0.0f;
        }
    }

    // `activated` and `pooled_out` point to this entry's strip, or are null where nothing is to be written (a strip that
    // is not whole pools nothing).
    template <bool A>
    SM_HD void step(const Args& a, const Pack<T, V> (&support)[S::kPacks], const Pack<T, V> (&query)[S::kPacks],
                    float weight, const StripEdge<V, Hwc>& edge, T* activated, T* pooled_out) {
        const Steps<int> to = steps<Hwc, int>(a, a.width);
        float largest[S::kPooled] = {};
        SM_UNROLL
        for (int p = 0; p < S::kPacks; ++p) {
            Pack<T, V> out;
            SM_UNROLL
            for (int v = 0; v < V; ++v) {
                const float x = leaky_relu(to_float(support[p].value[v]) + to_float(query[p].value[v]), a.slope);
                full[p][v] = weigh(full[p][v], weight, x);
                if (A) out.value[v] = from_float<T>(x);
                float& most = largest[S::pooled(v)];
                most = S::first(p, v) ? x : max_or_nan(most, x);
            }
            if (A && activated != nullptr && edge.real(p))
                store<V>(activated + S::row(p) * to.row + S::column(p) * to.column, out);
        }
        Pack<T, S::kPooled> out;
        SM_UNROLL
        for (int v = 0; v < S::kPooled; ++v) {
            pooled[v] = weigh(pooled[v], weight, largest[v]);
            out.value[v] = from_float<T>(largest[v]);
        }
        if (pooled_out != nullptr) store<S::kPooled>(pooled_out, out);
    }

    SM_HD void write(const Args& a, const Strip& strip, int64_t b, int64_t k) const {
        T* mean = static_cast<T*>(a.mean) + mean_offset(a, b, k, plane(a)) + strip_offset<Hwc>(a, strip);
        const StripEdge<V, Hwc> edge(a, strip);
        const Steps<int> to = steps<Hwc, int>(a, a.width);
        SM_UNROLL
        for (int p = 0; p < S::kPacks; ++p) {
            Pack<T, V> out;
            SM_UNROLL
            for (int v = 0; v < V; ++v) out.value[v] = from_float<T>(full[p][v]);
            if (edge.real(p)) store<V>(mean + S::row(p) * to.row + S::column(p) * to.column, out);
        }
        Pack<T, S::kPooled> out;
        SM_UNROLL
        for (int v = 0; v < S::kPooled; ++v) out.value[v] = from_float<T>(pooled[v]);
        if (edge.whole())
            store<S::kPooled>(static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_plane(a)) +
                                  strip_pooled_offset<Hwc>(a, strip),
                              out);
    }
};

// All packs of a strip; those that are missing repeat the first row or column.
template <typename T, int V, bool Hwc>
SM_HD void load_strip(const T* at, const Steps<int>& to, const StripEdge<V, Hwc>& edge,
                      Pack<T, V> (&out)[StripShape<V, Hwc>::kPacks]) {
    using S = StripShape<V, Hwc>;
    SM_UNROLL
    for (int p = 0; p < S::kPacks; ++p)
        out[p] = load<V>(at + (edge.two_rows ? S::row(p) * to.row : 0) + (edge.two_columns ? S::column(p) * to.column : 0));
}

// 2 to 5. Strips of vectors with four vectors in flight; one slice, split over the block's y, Q queries for one read,
// vectors of 8 bytes, A: as in MeanVector. Needs W, or with channels last C, to be a multiple of V.
template <typename T, int V, int Q, bool A, bool Hwc>
struct PoolVector {
    using S = StripShape<V, Hwc>;
    static constexpr int N = S::kPacks * V + S::kPooled;  // sums of a strip
    static constexpr int kPairs = 4 / S::kPacks;          // entries in flight
    static constexpr int kResident = pool_resident(V, sizeof(T), Q, A, Hwc);
    StripSums<T, V, Hwc> sums[Q];

    static constexpr size_t shared_floats(int threads) { return static_cast<size_t>(threads) * Q * N; }

    SM_HD void accumulate(const Args& a, const Place& at) {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) sums[q].clear();
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t number = at_block.tile * at.size_x + at.x, k = at_block.set, first = at_block.group * Q;
        if (number >= strip_count<V, Hwc>(a)) return;
        const Strip strip = strip_at<V, Hwc>(a, number);
        const int64_t p = strip_offset<Hwc>(a, strip), p_count = plane(a);
        const StripEdge<V, Hwc> edge(a, strip);
        const Steps<int> to = steps<Hwc, int>(a, a.width);
        const T* support = static_cast<const T*>(a.support) + support_offset(a, first, k, 0) + p;
        const int64_t pooled_count = pooled_plane(a);
        Pack<T, V> query[Q][S::kPacks];
        T *activated[Q], *pooled[Q];
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            // A group may reach past the last query: it then repeats the last one and stores nothing for it.
            const bool real = first + q < a.queries;
            const int64_t b = real ? first + q : a.queries - 1;
            load_strip<T, V, Hwc>(static_cast<const T*>(a.query) + query_offset(a, b, k) + p, to, edge, query[q]);
            activated[q] = !A || !real
                               ? nullptr
                               : static_cast<T*>(a.activated) + entry_offset(a, b, k, 0, p_count) + p;
            pooled[q] = !real || !edge.whole() ? nullptr
                                      : static_cast<T*>(a.pooled) + entry_offset(a, b, k, 0, pooled_count) +
                                            strip_pooled_offset<Hwc>(a, strip);
        }
        const float* weights = a.weights + k * a.entries;
        const int64_t stride = at.size_y;
        int64_t s = at.y;
        for (; s + (kPairs - 1) * stride < a.entries; s += kPairs * stride) {
            Pack<T, V> ahead[kPairs][S::kPacks];
            SM_UNROLL
            for (int j = 0; j < kPairs; ++j)
                load_strip<T, V, Hwc>(support + (s + j * stride) * p_count, to, edge, ahead[j]);
            SM_UNROLL
            for (int j = 0; j < kPairs; ++j) {
                const int64_t e = s + j * stride;
                step(a, ahead[j], query, load_one(weights + e), edge, activated, e * p_count, pooled, e * pooled_count);
            }
        }
        for (; s < a.entries; s += stride) {
            Pack<T, V> packs[S::kPacks];
            load_strip<T, V, Hwc>(support + s * p_count, to, edge, packs);
            step(a, packs, query, load_one(weights + s), edge, activated, s * p_count, pooled, s * pooled_count);
        }
    }

    SM_HD void step(const Args& a, const Pack<T, V> (&packs)[S::kPacks], const Pack<T, V> (&query)[Q][S::kPacks],
                    float weight, const StripEdge<V, Hwc>& edge, T* const (&activated)[Q], int64_t offset,
                    T* const (&pooled)[Q], int64_t pooled_offset) {
        SM_UNROLL
        for (int q = 0; q < Q; ++q)
            sums[q].template step<A>(a, packs, query[q], weight, edge,
                                     activated[q] == nullptr ? nullptr : activated[q] + offset,
                                     pooled[q] == nullptr ? nullptr : pooled[q] + pooled_offset);
    }

    // With one slice there is nothing to combine: each thread writes its own sums.
    SM_HD void write(const Args& a, const Place& at) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) write_query(a, at, q, sums[q]);
    }

    SM_HD void write_query(const Args& a, const Place& at, int q, const StripSums<T, V, Hwc>& total) const {
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t number = at_block.tile * at.size_x + at.x, b = at_block.group * Q + q;
        if (number < strip_count<V, Hwc>(a) && b < a.queries)
            total.write(a, strip_at<V, Hwc>(a, number), b, at_block.set);
    }

    SM_HD void publish(const Place& at, float* shared) const {
        SM_UNROLL
        for (int q = 0; q < Q; ++q) {
            SM_UNROLL
            for (int n = 0; n < N; ++n)
                shared[((at.y * Q + q) * N + n) * at.size_x + at.x] =
                    n < S::kPacks * V ? sums[q].full[n / V % S::kPacks][n % V] : sums[q].pooled[n % S::kPooled];
        }
    }

    SM_HD void finish(const Args& a, const Place& at, const float* shared) const {
        for (int q = at.y; q < Q; q += at.size_y) {
            StripSums<T, V, Hwc> total;
            total.clear();
            SM_UNROLL
            for (int n = 0; n < N; ++n) {
                float& sum = n < S::kPacks * V ? total.full[n / V % S::kPacks][n % V] : total.pooled[n % S::kPooled];
                for (int y = 0; y < at.size_y; ++y) sum += shared[((y * Q + q) * N + n) * at.size_x + at.x];
            }
            write_query(a, at, q, total);
        }
    }
};

}  // namespace support_mean
}  // namespace universeg
