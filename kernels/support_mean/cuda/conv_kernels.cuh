// Form c, SupportMeanPool over the raw support: the first block's composed 5x5 convolution 2 -> C, then form a.
//
// The 5x5 kernel is two 3x3 kernels in a row, Ws after Wv. Zero padding between them makes the plain 5x5 wrong on the
// outermost ring of pixels, where one of the middle positions lies outside the image and must not contribute. What it
// would contribute reaches only one row (or column) of the input, so the correction is a short 1-D filter a side:
// `border` (C, 2, 24) holds 5 taps each for top, bottom, left and right, and 4 for the corners TL TR BL BR, whose
// middle position the two sides both counted. reference.py composes both arrays and says why it is exact.
#pragma once

#include "pool_kernels.cuh"

namespace universeg {
namespace support_mean {

constexpr int kInputs = 2;    // image and label
constexpr int kTaps = 5;      // of the composed kernel, a side
constexpr int kBorder = 24;   // border values of one (output, input) channel pair
enum BorderPart { kTop = 0, kBottom = 5, kLeft = 10, kRight = 15, kCorner = 20 };

// Input value at (row, column) of a (H, W) map; zero outside.
template <typename T>
SM_HD float padded(const Args& a, const T* map, int64_t row, int64_t column) {
    return row < 0 || row >= a.height || column < 0 || column >= a.width ? 0.0f : load_one(map + row * a.width + column);
}

// One output of the convolution, read straight from memory: `entry` is one support entry (2, H, W).
template <typename T>
SM_HD float convolve(const Args& a, const T* entry, int64_t channel, int64_t y, int64_t x) {
    float sum = 0.0f;
    const bool top = y == 0, bottom = y == a.height - 1, left = x == 0, right = x == a.width - 1;
    for (int i = 0; i < kInputs; ++i) {
        const T* map = entry + i * a.height * a.width;
        const float* taps = a.convolution + (channel * kInputs + i) * kTaps * kTaps;
        for (int ky = 0; ky < kTaps; ++ky)
            for (int kx = 0; kx < kTaps; ++kx)
                sum = weigh(sum, load_one(taps + ky * kTaps + kx), padded(a, map, y + ky - 2, x + kx - 2));
        const float* border = a.border + (channel * kInputs + i) * kBorder;
        for (int t = 0; t < kTaps; ++t) {
            if (top) sum = weigh(sum, -load_one(border + kTop + t), padded(a, map, y, x + t - 2));
            if (bottom) sum = weigh(sum, -load_one(border + kBottom + t), padded(a, map, y, x + t - 2));
            if (left) sum = weigh(sum, -load_one(border + kLeft + t), padded(a, map, y + t - 2, x));
            if (right) sum = weigh(sum, -load_one(border + kRight + t), padded(a, map, y + t - 2, x));
        }
        const float here = padded(a, map, y, x);
        if (top && left) sum = weigh(sum, load_one(border + kCorner + 0), here);
        if (top && right) sum = weigh(sum, load_one(border + kCorner + 1), here);
        if (bottom && left) sum = weigh(sum, load_one(border + kCorner + 2), here);
        if (bottom && right) sum = weigh(sum, load_one(border + kCorner + 3), here);
    }
    return sum;
}

// 1. A thread owns one 2x2 square of one channel and reads everything from memory. Any shape.
template <typename T>
struct Conv1 {
    static SM_HD void run(const Args& a, const Place& at) {
        const int64_t strips = strip_count<2, false>(a), i = static_cast<int64_t>(at.block) * at.size_x + at.x;
        if (i >= a.queries * a.sets * strips) return;
        const int64_t k = i / strips % a.sets, b = i / strips / a.sets;
        const int64_t p_count = plane(a), pooled_count = pooled_plane(a), raw_count = kInputs * a.height * a.width;
        const Strip strip = strip_at<2, false>(a, i % strips);
        const int64_t p = strip_offset<false>(a, strip), pooled_p = strip_pooled_offset<false>(a, strip);
        const int rows = strip.row + 1 < a.height ? 2 : 1, columns = strip.column + 1 < a.width ? 2 : 1;
        const bool whole = rows == 2 && columns == 2;
        const T* support = static_cast<const T*>(a.support) + k * a.entries * raw_count;
        const T* query = static_cast<const T*>(a.query) + query_offset(a, b, k) + p;
        float sum[2][2] = {}, pooled_sum = 0.0f;
        for (int64_t s = 0; s < a.entries; ++s) {
            const float weight = load_one(a.weights + k * a.entries + s);
            float largest = 0.0f;
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < columns; ++c) {
                    const float term =
                        convolve(a, support + s * raw_count, strip.channel, strip.row + r, strip.column + c);
                    const float x = leaky_relu(term + load_one(query + r * a.width + c), a.slope);
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

// Geometry of kernel 2: a block covers 16 rows and 32 columns of 8 channels; a thread one 2x2 square of each.
struct ConvTile {
    static constexpr int kChannels = 8;
    static constexpr int kRows = 16, kColumns = 32;
    static constexpr int kResident = 3;  // blocks a multiprocessor must have registers for
    static constexpr int kBlock = kRows / 2 * (kColumns / 2);          // 128 threads
    static constexpr int kHaloRows = kRows + 4, kHaloColumns = kColumns + 4;
    static constexpr int kMap = kHaloRows * kHaloColumns;              // one input channel in shared memory
    static constexpr int kHalo = kInputs * kMap;                       // one support entry in shared memory
    static constexpr int kFetch = (kHalo + kBlock - 1) / kBlock;       // elements of it that a thread brings
    // Shared memory, in floats: two entries, the taps, the border, the query term of every thread's squares.
    static constexpr int kTapsAt = 2 * kHalo;
    static constexpr int kBorderAt = kTapsAt + kInputs * kTaps * kTaps * kChannels;
    static constexpr int kQueryAt = kBorderAt + kInputs * kBorder * kChannels;
    static constexpr int kShared = kQueryAt + 4 * kChannels * kBlock;

    static SM_HD int64_t across(const Args& a) { return (a.width + kColumns - 1) / kColumns; }
    static SM_HD int64_t down(const Args& a) { return (a.height + kRows - 1) / kRows; }
    static SM_HD int64_t channel_groups(const Args& a) { return (a.channels + kChannels - 1) / kChannels; }
};

// 2. Tiles in shared memory, brought one entry ahead, and 32 sums in registers: each input value read from shared
// memory serves 8 channels, each tap four pixels. Needs H * W below 2^30, so that offsets inside an entry are ints.
template <typename T>
struct Conv2 : ConvTile {
    float sum[4][kChannels];  // pixel r * 2 + c of the square
    float pooled_sum[kChannels];
    int source[kFetch];  // offset inside an entry of each element this thread brings; -1 is padding
    int channel, row, column, k, b;

    SM_HD void begin(const Args& a, const Place& at, float* shared) {
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t across_count = across(a), groups = channel_groups(a);
        k = static_cast<int>(at_block.set);
        b = static_cast<int>(at_block.group);
        channel = static_cast<int>(at_block.tile % groups) * kChannels;
        const int64_t top = at_block.tile / groups / across_count * kRows;
        const int64_t left = at_block.tile / groups % across_count * kColumns;
        row = static_cast<int>(top) + at.x / (kColumns / 2) * 2;
        column = static_cast<int>(left) + at.x % (kColumns / 2) * 2;
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j) {
            const int e = at.x + j * kBlock, y = e % kMap / kHaloColumns, x = e % kHaloColumns;
            const int64_t from_y = top + y - 2, from_x = left + x - 2;
            const bool inside = e < kHalo && from_y >= 0 && from_y < a.height && from_x >= 0 && from_x < a.width;
            source[j] = inside ? static_cast<int>((e / kMap * a.height + from_y) * a.width + from_x) : -1;
        }
        for (int e = at.x; e < kInputs * kTaps * kTaps * kChannels; e += kBlock)
            shared[kTapsAt + e] = spread(a, a.convolution, kTaps * kTaps, e);
        for (int e = at.x; e < kInputs * kBorder * kChannels; e += kBlock)
            shared[kBorderAt + e] = spread(a, a.border, kBorder, e);
        const T* query = static_cast<const T*>(a.query) + query_offset(a, b, k);
        SM_UNROLL
        for (int n = 0; n < kChannels; ++n) {
            pooled_sum[n] = 0.0f;
            SM_UNROLL
            for (int q = 0; q < 4; ++q) {
                sum[q][n] = 0.0f;
                const int64_t y = row + q / 2, x = column + q % 2;
                const bool real = channel + n < a.channels && y < a.height && x < a.width;
                shared[kQueryAt + (n * 4 + q) * kBlock + at.x] =
                    real ? load_one(query + (int64_t{channel + n} * a.height + y) * a.width + x) : 0.0f;
            }
        }
        float ahead[kFetch];
        fetch(a, 0, ahead);
        stash(at, shared, ahead);
    }

    // Element e of a (2, size, 8) array in shared memory, from the (C, 2, size) array in memory.
    SM_HD float spread(const Args& a, const float* from, int size, int e) const {
        const int64_t c = channel + e % kChannels;
        const int i = e / kChannels / size, t = e / kChannels % size;
        return c < a.channels ? load_one(from + (c * kInputs + i) * size + t) : 0.0f;
    }

    SM_HD void fetch(const Args& a, int64_t s, float (&ahead)[kFetch]) const {
        const T* entry = static_cast<const T*>(a.support) + (k * a.entries + s) * kInputs * a.height * a.width;
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j) ahead[j] = source[j] < 0 ? 0.0f : load_one(entry + source[j]);
    }

    SM_HD void stash(const Place& at, float* halo, const float (&ahead)[kFetch]) const {
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j)
            if (at.x + j * kBlock < kHalo) halo[at.x + j * kBlock] = ahead[j];
    }

    // One support entry, between two barriers: reads buffer s % 2, fills the other one.
    SM_HD void step(const Args& a, const Place& at, float* shared, int64_t s) {
        float ahead[kFetch];
        const bool more = s + 1 < a.entries;
        if (more) fetch(a, s + 1, ahead);
        compute(a, at, shared, shared + s % 2 * kHalo, s);
        if (more) stash(at, shared + (s + 1) % 2 * kHalo, ahead);
    }

    SM_HD void compute(const Args& a, const Place& at, const float* shared, const float* halo, int64_t s) {
        float term[4][kChannels];
        SM_UNROLL
        for (int n = 0; n < kChannels; ++n) {
            SM_UNROLL
            for (int q = 0; q < 4; ++q) term[q][n] = shared[kQueryAt + (n * 4 + q) * kBlock + at.x];
        }
        const float* corner = halo + at.x / (kColumns / 2) * 2 * kHaloColumns + at.x % (kColumns / 2) * 2;
        for (int i = 0; i < kInputs; ++i) {
            SM_UNROLL
            for (int y = 0; y < kTaps + 1; ++y) {  // input row y serves output row 0 with tap y, row 1 with tap y - 1
                float value[kTaps + 1];
                SM_UNROLL
                for (int x = 0; x < kTaps + 1; ++x) value[x] = corner[i * kMap + y * kHaloColumns + x];
                SM_UNROLL
                for (int r = 0; r < 2; ++r) {
                    const int ky = y - r;
                    if (ky < 0 || ky >= kTaps) continue;
                    SM_UNROLL
                    for (int kx = 0; kx < kTaps; ++kx) {
                        const float* taps = shared + kTapsAt + ((i * kTaps + ky) * kTaps + kx) * kChannels;
                        SM_UNROLL
                        for (int n = 0; n < kChannels; ++n) {
                            term[r * 2][n] = weigh(term[r * 2][n], taps[n], value[kx]);
                            term[r * 2 + 1][n] = weigh(term[r * 2 + 1][n], taps[n], value[kx + 1]);
                        }
                    }
                }
            }
        }
        if (row == 0 || column == 0 || row + 2 >= a.height || column + 2 >= a.width) {
            SM_UNROLL
            for (int q = 0; q < 4; ++q)
                correct(a, shared + kBorderAt, corner + (q / 2 + 2) * kHaloColumns + q % 2 + 2, row + q / 2,
                        column + q % 2, term[q]);
        }
        const bool whole = row + 1 < a.height && column + 1 < a.width;
        const float weight = load_one(a.weights + k * a.entries + s);
        T* pooled = static_cast<T*>(a.pooled) + entry_offset(a, b, k, s, pooled_plane(a)) +
                    (int64_t{channel} * (a.height / 2) + row / 2) * (a.width / 2) + column / 2;
        SM_UNROLL
        for (int n = 0; n < kChannels; ++n) {
            float largest = 0.0f;
            SM_UNROLL
            for (int q = 0; q < 4; ++q) {
                const float x = leaky_relu(term[q][n], a.slope);
                sum[q][n] = weigh(sum[q][n], weight, x);
                largest = q == 0 ? x : max_or_nan(largest, x);
            }
            pooled_sum[n] = weigh(pooled_sum[n], weight, largest);
            if (whole && channel + n < a.channels)
                store_one(pooled + n * (a.height / 2) * (a.width / 2), largest);
        }
    }

    // Takes the ring's contribution out of one pixel's 8 channels; `here` is that pixel in the halo tile.
    SM_HD void correct(const Args& a, const float* border, const float* here, int64_t y, int64_t x,
                       float (&term)[kChannels]) const {
        const bool top = y == 0, bottom = y == a.height - 1, left = x == 0, right = x == a.width - 1;
        if (top) take(border, kTop, kTaps, here - 2, 1, -1.0f, term);
        if (bottom) take(border, kBottom, kTaps, here - 2, 1, -1.0f, term);
        if (left) take(border, kLeft, kTaps, here - 2 * kHaloColumns, kHaloColumns, -1.0f, term);
        if (right) take(border, kRight, kTaps, here - 2 * kHaloColumns, kHaloColumns, -1.0f, term);
        if (top && left) take(border, kCorner + 0, 1, here, 0, 1.0f, term);
        if (top && right) take(border, kCorner + 1, 1, here, 0, 1.0f, term);
        if (bottom && left) take(border, kCorner + 2, 1, here, 0, 1.0f, term);
        if (bottom && right) take(border, kCorner + 3, 1, here, 0, 1.0f, term);
    }

    SM_HD void take(const float* border, int first, int count, const float* from, int step, float sign,
                    float (&term)[kChannels]) const {
        // Kept as a loop: unrolled, this rare path would be half of the kernel's code.
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
        for (int t = 0; t < kInputs * count; ++t) {
            const int i = t / count, tap = t % count;
            const float value = sign * from[i * kMap + tap * step];
            SM_UNROLL
            for (int n = 0; n < kChannels; ++n)
                term[n] = weigh(term[n], border[(i * kBorder + first + tap) * kChannels + n], value);
        }
    }

    SM_HD void finish(const Args& a) const {
        const bool whole = row + 1 < a.height && column + 1 < a.width;
        const int64_t p_count = plane(a), pooled_count = pooled_plane(a);
        SM_UNROLL
        for (int n = 0; n < kChannels; ++n) {
            if (channel + n >= a.channels) continue;
            SM_UNROLL
            for (int q = 0; q < 4; ++q) {
                const int64_t y = row + q / 2, x = column + q % 2;
                if (y < a.height && x < a.width)
                    store_one(static_cast<T*>(a.mean) + mean_offset(a, b, k, p_count) +
                                  (int64_t{channel + n} * a.height + y) * a.width + x,
                              sum[q][n]);
            }
            if (whole)
                store_one(static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_count) +
                              (int64_t{channel + n} * (a.height / 2) + row / 2) * (a.width / 2) + column / 2,
                          pooled_sum[n]);
        }
    }
};

}  // namespace support_mean
}  // namespace universeg
