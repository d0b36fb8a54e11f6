// Form c, kernel 3: the composed convolution on tensor cores, for the 16-bit types.
//
// One product a 2x16 patch of pixels: rows are pixels, columns are output channels, and the inner index runs over taps and
// the two input channels. The two inputs of a pixel lie side by side in one 32-bit word of shared memory, which is just
// what a lane feeds into mma.sync for one tap, so no patch is ever rearranged. The even and the odd columns of the patch
// are two products, and the two rows are rows r and r + 8 of each: a lane then holds whole 2x2 squares and pools them
// without talking to another lane. Taps are float32 and the tensor core's inputs are not: each tap is split into a high
// and a low part of the storage type, multiplied apart and summed in float32, which keeps kernel 2's accuracy.
#pragma once

#include "conv_kernels.cuh"

namespace universeg {
namespace support_mean {

struct MmaTile {
    static constexpr int kBlock = 128, kWarps = 4;
    static constexpr int kResident = 4;
    static constexpr int kWarpChannels = 16, kChannels = kWarps * kWarpChannels;
    static constexpr int kRows = 2, kColumns = 16;
    static constexpr int kHaloRows = kRows + 4, kHaloColumns = kColumns + 4;
    static constexpr int kMap = kHaloRows * kHaloColumns;  // words of one entry: both inputs of each pixel
    static constexpr int kStage = 4;                       // entries between two barriers
    static constexpr int kWords = kMap * kStage;
    static constexpr int kFetch = (kWords + kBlock - 1) / kBlock;
    static constexpr int kSteps = 3;                       // products of 8 taps; the 25th tap has a smaller one
    static constexpr int kFragment = kSteps * 4 + 2;       // words a lane feeds for one product's rows
    static constexpr int kBorderAt = 2 * kWords;           // shared memory, in 4-byte words
    static constexpr int kShared = kBorderAt + kInputs * kBorder * kChannels;

    static SM_HD int64_t across(const Args& a) { return (a.width + kColumns - 1) / kColumns; }
    static SM_HD int64_t down(const Args& a) { return (a.height + kRows - 1) / kRows; }
    static SM_HD int64_t channel_groups(const Args& a) { return (a.channels + kChannels - 1) / kChannels; }
};

// Taps of one lane for its 2 groups of 8 channels: high and low parts for the products of 8 taps, and for the 25th tap,
// whose high and low parts stand side by side in one product.
struct MmaTaps {
    uint32_t wide[MmaTile::kSteps][2][2][2];  // step, channel group, part, word
    uint32_t last[2];
};

// A lane's part of the results: [even or odd column][channel group][row * 2 + channel parity].
using MmaTerm = float[2][2][4];

template <typename T>
SM_HD uint32_t pack(T low, T high) {
    return static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16;
}

template <typename T>
struct Conv3 : MmaTile {
    float sum[2][2][4];
    float pooled_sum[2][2];  // channel group, channel parity
    T query[2][2][4];
    MmaTaps taps;
    uint32_t ahead[kFetch];
    int source[kFetch];  // offset inside a map of each word this thread brings; -1 is padding
    int offset[kSteps][2];  // where this lane's taps lie in a halo
    int channel, row, column, k, b, lane_row, lane_part, warp;

    SM_HD void begin(const Args& a, const Place& at, float* shared) {
        const BlockIndex at_block = block_index(a, at.block);
        const int64_t groups = channel_groups(a), across_count = across(a);
        k = static_cast<int>(at_block.set);
        b = static_cast<int>(at_block.group);
        warp = at.x / 32;
        lane_row = at.x % 32 / 4;
        lane_part = at.x % 4;
        const int block_channel = static_cast<int>(at_block.tile % groups) * kChannels;
        channel = block_channel + warp * kWarpChannels;
        row = static_cast<int>(at_block.tile / groups / across_count) * kRows;
        column = static_cast<int>(at_block.tile / groups % across_count) * kColumns;
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j) {
            const int e = at.x + j * kBlock, y = row + e % kMap / kHaloColumns - 2, x = column + e % kHaloColumns - 2;
            const bool inside = e < kWords && y >= 0 && y < a.height && x >= 0 && x < a.width;
            source[j] = inside ? static_cast<int>(y * a.width + x) : -1;
        }
        for (int e = at.x; e < kInputs * kBorder * kChannels; e += kBlock) {
            const int c = block_channel + e % kChannels, part = e / kChannels % kBorder, i = e / kChannels / kBorder;
            shared[kBorderAt + e] =
                c < a.channels ? load_one(a.border + (int64_t{c} * kInputs + i) * kBorder + part) : 0.0f;
        }
        SM_UNROLL
        for (int step = 0; step < kSteps; ++step) {
            SM_UNROLL
            for (int h = 0; h < 2; ++h) {
                const int tap = step * 8 + lane_part + 4 * h;
                offset[step][h] = tap / kTaps * kHaloColumns + tap % kTaps;
                SM_UNROLL
                for (int n = 0; n < 2; ++n) {
                    taps.wide[step][n][0][h] = tap_word(a, n, tap, 0);
                    taps.wide[step][n][1][h] = tap_word(a, n, tap, 1);
                }
            }
        }
        SM_UNROLL
        for (int n = 0; n < 2; ++n) taps.last[n] = lane_part < 2 ? tap_word(a, n, 24, lane_part) : 0u;
        const T* from = static_cast<const T*>(a.query) + query_offset(a, b, k);
        SM_UNROLL
        for (int p = 0; p < 2; ++p) {
            SM_UNROLL
            for (int n = 0; n < 2; ++n) {
                SM_UNROLL
                for (int v = 0; v < 4; ++v) {
                    sum[p][n][v] = 0.0f;
                    pooled_sum[n][v % 2] = 0.0f;
                    query[p][n][v] = real(a, p, n, v) ? load<1>(from + position(a, p, n, v)).value[0] : T{0};
                }
            }
        }
        fetch(a, 0);
        stash(at, shared, 0);
    }

    // Channel and pixel of a value; the mapping of mma.sync's results to lanes.
    SM_HD int channel_of(int n, int v) const { return channel + n * 8 + lane_part * 2 + v % 2; }
    SM_HD int row_of(int v) const { return row + v / 2; }
    SM_HD int column_of(int p) const { return column + lane_row * 2 + p; }
    SM_HD bool real(const Args& a, int p, int n, int v) const {
        return channel_of(n, v) < a.channels && row_of(v) < a.height && column_of(p) < a.width;
    }
    SM_HD int64_t position(const Args& a, int p, int n, int v) const {
        return (int64_t{channel_of(n, v)} * a.height + row_of(v)) * a.width + column_of(p);
    }

    // One tap of both inputs for channel group n; part 0 is the tap in the storage type, part 1 what that left over.
    SM_HD uint32_t tap_word(const Args& a, int n, int tap, int part) const {
        const int c = channel + n * 8 + lane_row;
        if (c >= a.channels) return 0u;
        T word[kInputs];
        SM_UNROLL
        for (int i = 0; i < kInputs; ++i) {
            const float exact = load_one(a.convolution + (int64_t{c} * kInputs + i) * kTaps * kTaps + tap);
            const T high = from_float<T>(exact);
            word[i] = part == 0 ? high : from_float<T>(exact - to_float(high));
        }
        return pack(word[0], word[1]);
    }

    // Brings entries first .. first + kStage - 1 into registers; those past the last are zero and never used.
    SM_HD void fetch(const Args& a, int64_t first) {
        const int64_t map = a.height * a.width;
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j) ahead[j] = 0u;
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j) {
            const int64_t s = first + entry_of(j);
            if (source[j] < 0 || s >= a.entries) continue;
            const T* entry = static_cast<const T*>(a.support) + (k * a.entries + s) * kInputs * map;
            ahead[j] = pack(load<1>(entry + source[j]).value[0], load<1>(entry + map + source[j]).value[0]);
        }
    }

    // Entry of a stage to which word j of this thread belongs.
    SM_HD int entry_of(int j) const { return (warp * 32 + lane_row * 4 + lane_part + j * kBlock) / kMap; }

    SM_HD void stash(const Place& at, float* shared, int buffer) const {
        SM_UNROLL
        for (int j = 0; j < kFetch; ++j)
            if (at.x + j * kBlock < kWords) shared[buffer * kWords + at.x + j * kBlock] = bits_float(ahead[j]);
    }

    // What this lane feeds for the even (p = 0) and odd columns: pixels of row 0 and row 1, taps of each step.
    SM_HD void gather(const float* halo, uint32_t (&fragment)[2][kFragment]) const {
        SM_UNROLL
        for (int p = 0; p < 2; ++p) {
            const float* pixel = halo + lane_row * 2 + p;
            SM_UNROLL
            for (int step = 0; step < kSteps; ++step) {
                SM_UNROLL
                for (int r = 0; r < 4; ++r)
                    fragment[p][step * 4 + r] = float_bits(pixel[r % 2 * kHaloColumns + offset[step][r / 2]]);
            }
            SM_UNROLL
            for (int r = 0; r < 2; ++r)
                fragment[p][kSteps * 4 + r] =
                    lane_part < 2 ? float_bits(pixel[(r + 4) * kHaloColumns + 4]) : 0u;
        }
    }

    // The products start from the query term.
    SM_HD void start(MmaTerm& term) const {
        SM_UNROLL
        for (int p = 0; p < 2; ++p) {
            SM_UNROLL
            for (int n = 0; n < 2; ++n) {
                SM_UNROLL
                for (int v = 0; v < 4; ++v) term[p][n][v] = to_float(query[p][n][v]);
            }
        }
    }

    SM_HD void consume(const Args& a, const float* shared, const float* halo, int64_t s, MmaTerm& term) {
        if (row == 0 || column == 0 || row + kRows >= a.height || column + kColumns >= a.width) {
            SM_UNROLL
            for (int p = 0; p < 2; ++p) {
                SM_UNROLL
                for (int r = 0; r < 2; ++r) correct(a, shared + kBorderAt, halo, p, r, term);
            }
        }
        const float weight = load_one(a.weights + k * a.entries + s);
        const bool whole = row + 1 < a.height && column_of(1) < a.width;
        T* pooled = static_cast<T*>(a.pooled) + entry_offset(a, b, k, s, pooled_plane(a));
        SM_UNROLL
        for (int n = 0; n < 2; ++n) {
            SM_UNROLL
            for (int e = 0; e < 2; ++e) {
                float largest = 0.0f;
                SM_UNROLL
                for (int q = 0; q < 4; ++q) {
                    const int p = q % 2, v = q / 2 * 2 + e;
                    const float x = leaky_relu(term[p][n][v], a.slope);
                    sum[p][n][v] = weigh(sum[p][n][v], weight, x);
                    largest = q == 0 ? x : max_or_nan(largest, x);
                }
                pooled_sum[n][e] = weigh(pooled_sum[n][e], weight, largest);
                if (whole && channel_of(n, e) < a.channels) store_one(pooled + pooled_position(a, n, e), largest);
            }
        }
    }

    SM_HD int64_t pooled_position(const Args& a, int n, int e) const {
        return (int64_t{channel_of(n, e)} * (a.height / 2) + row / 2) * (a.width / 2) + column / 2 + lane_row;
    }

    // As Conv2::correct, for the four channels of one pixel.
    SM_HD void correct(const Args& a, const float* border, const float* halo, int p, int r, MmaTerm& term) const {
        const int64_t y = row + r, x = column_of(p);
        const bool top = y == 0, bottom = y == a.height - 1, left = x == 0, right = x == a.width - 1;
        if (!(top || bottom || left || right)) return;
        const float* here = halo + (r + 2) * kHaloColumns + lane_row * 2 + p + 2;
        float taken[4] = {};
        if (top) take(border, kTop, kTaps, here - 2, 1, -1.0f, taken);
        if (bottom) take(border, kBottom, kTaps, here - 2, 1, -1.0f, taken);
        if (left) take(border, kLeft, kTaps, here - 2 * kHaloColumns, kHaloColumns, -1.0f, taken);
        if (right) take(border, kRight, kTaps, here - 2 * kHaloColumns, kHaloColumns, -1.0f, taken);
        if (top && left) take(border, kCorner + 0, 1, here, 0, 1.0f, taken);
        if (top && right) take(border, kCorner + 1, 1, here, 0, 1.0f, taken);
        if (bottom && left) take(border, kCorner + 2, 1, here, 0, 1.0f, taken);
        if (bottom && right) take(border, kCorner + 3, 1, here, 0, 1.0f, taken);
        SM_UNROLL
        for (int c = 0; c < 4; ++c) term[p][c / 2][r * 2 + c % 2] += taken[c];
    }

    SM_HD void take(const float* border, int first, int count, const float* from, int step, float sign,
                    float (&taken)[4]) const {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
        for (int t = 0; t < kInputs * count; ++t) {
            const int i = t / count, tap = t % count;
            const uint32_t word = float_bits(from[tap * step]);
            const float value = sign * to_float(T{static_cast<uint16_t>(i == 0 ? word : word >> 16)});
            const float* filter = border + (i * kBorder + first + tap) * kChannels + warp * kWarpChannels + lane_part * 2;
            SM_UNROLL
            for (int c = 0; c < 4; ++c) taken[c] = weigh(taken[c], filter[c / 2 * 8 + c % 2], value);
        }
    }

    SM_HD void finish(const Args& a) const {
        const bool whole = row + 1 < a.height && column_of(1) < a.width;
        T* mean = static_cast<T*>(a.mean) + mean_offset(a, b, k, plane(a));
        T* pooled_mean = static_cast<T*>(a.pooled_mean) + mean_offset(a, b, k, pooled_plane(a));
        SM_UNROLL
        for (int n = 0; n < 2; ++n) {
            SM_UNROLL
            for (int v = 0; v < 4; ++v) {
                SM_UNROLL
                for (int p = 0; p < 2; ++p)
                    if (real(a, p, n, v)) store_one(mean + position(a, p, n, v), sum[p][n][v]);
                if (v < 2 && whole && channel_of(n, v) < a.channels)
                    store_one(pooled_mean + pooled_position(a, n, v), pooled_sum[n][v]);
            }
        }
    }
};

}  // namespace support_mean
}  // namespace universeg
