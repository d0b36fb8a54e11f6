// Strips, what a thread of form a owns of a map (pool_kernels.cuh): their shape, number, places and first elements.
#pragma once

#include "arithmetic.cuh"

namespace universeg {
namespace support_mean {

// What a strip of vectors of V elements is: its vectors (packs), and the columns and channels that it covers.
template <int V, bool Hwc>
struct StripShape {
    static constexpr int kPacks = Hwc ? 4 : 2, kColumns = Hwc ? 2 : V, kChannels = Hwc ? V : 1;
    static constexpr int kPooled = Hwc ? V : V / 2;
    // Of pack p: its row and, among the strip's packs, its column. Of element v of a pack: its pooled element.
    static SM_HD int row(int p) { return Hwc ? p / 2 : p; }
    static SM_HD int column(int p) { return Hwc ? p % 2 : 0; }
    static SM_HD int pooled(int v) { return Hwc ? v : v / 2; }
    static SM_HD bool first(int p, int v) { return p == 0 && (Hwc || v % 2 == 0); }
};

// Position of a strip, from its number among those of a map. With channels last the channels run fastest.
struct Strip {
    int64_t channel, row, column;  // of its first element
};

template <int V, bool Hwc>
SM_HD int64_t strip_count(const Args& a) {
    using S = StripShape<V, Hwc>;
    return a.channels / S::kChannels * ((a.height + 1) / 2) * ((a.width + S::kColumns - 1) / S::kColumns);
}

template <int V, bool Hwc>
SM_HD Strip strip_at(const Args& a, int64_t number) {
    using S = StripShape<V, Hwc>;
    const int64_t across = (a.width + S::kColumns - 1) / S::kColumns, pairs = (a.height + 1) / 2;
    if (Hwc) {
        const int64_t groups = a.channels / S::kChannels;
        return {number % groups * V, number / groups / across * 2, number / groups % across * 2};
    }
    return {number / across / pairs, number / across % pairs * 2, number % across * V};
}

template <bool Hwc>
SM_HD int64_t strip_offset(const Args& a, const Strip& t) {
    const Steps<int64_t> to = steps<Hwc, int64_t>(a, a.width);
    return t.channel * (Hwc ? 1 : a.height * a.width) + t.row * to.row + t.column * to.column;
}

template <bool Hwc>
SM_HD int64_t strip_pooled_offset(const Args& a, const Strip& t) {
    const Steps<int64_t> to = steps<Hwc, int64_t>(a, a.width / 2);
    return t.channel * (Hwc ? 1 : a.height / 2 * (a.width / 2)) + t.row / 2 * to.row + t.column / 2 * to.column;
}

}  // namespace support_mean
}  // namespace universeg
