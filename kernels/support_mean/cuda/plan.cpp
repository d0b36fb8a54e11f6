// Chooses the kernel of a checked problem and plans its launch.
#include "mma_kernels.cuh"
#include "problem.h"

namespace universeg {
namespace support_mean {

namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

uint32_t block_count(int64_t tiles, int64_t sets, int64_t groups) {
    int64_t blocks = 0;
    if (__builtin_mul_overflow(tiles, sets, &blocks) || __builtin_mul_overflow(blocks, groups, &blocks) ||
        blocks > kMaxSize)
        refuse("this problem needs more than 2^31 - 1 blocks; split it over queries or support sets",
               SUPPORT_MEAN_UNSUPPORTED);
    return static_cast<uint32_t>(blocks);
}

}  // namespace

support_mean_launch plan(const support_mean_problem& p, int multiprocessors) {
    if (multiprocessors < 1) refuse("the device has " + text(multiprocessors) + " multiprocessors; give at least 1");
    const bool pool = p.form == SUPPORT_MEAN_POOL, conv = p.form == SUPPORT_MEAN_CONV_POOL;
    const int64_t map = p.channels * p.height * p.width;
    const bool last_channels = p.layout == SUPPORT_MEAN_CHANNELS_LAST;
    // Elements that lie side by side in one thread's reach.
    const int64_t run = !pool ? map : last_channels ? p.channels : p.width;
    const int element = static_cast<int>(element_size(p.dtype));
    // Elements of one access of kernels 2 to 5; kernel 4 takes fewer of a 16-bit type to have registers for its queries.
    const int widths[] = {0, 1, 16 / element, 16 / element, 4, 8 / element};
    // Threads' worth of work in one query and set, with vectors of v elements.
    const auto items = [&](int64_t v) {
        return !pool           ? map / v
               : last_channels ? ceil_div(p.height, 2) * ceil_div(p.width, 2) * (p.channels / v)
                               : p.channels * ceil_div(p.height, 2) * (p.width / v);
    };
    const bool shared = p.support_queries == 1 && p.queries > 1;
    const bool int_offsets = p.height * p.width < (int64_t{1} << 30);
    support_mean_launch out{};
    out.kernel = p.kernel;
    if (p.kernel == 0 && conv) out.kernel = int_offsets ? 2 : 1;
    // Kernel 2 splits no support. It was measured faster than 5 and 3 at 256 blocks on 132 multiprocessors (form a, 16
    // bits, channels first, 64 x 128 x 128; benchmarks/results/h100/kernels_timing.csv): with so many or more it is taken.
    const bool enough = items(widths[2]) * p.queries * p.sets >= int64_t{kThreads} * multiprocessors * 15 / 8;
    if (p.kernel == 0 && !conv) out.kernel = run % widths[4] == 0 && shared && p.activated == 0 ? 4
                                             : pool && element == 2 && !last_channels && run % widths[2] == 0 &&
                                                       p.activated == 0 && enough         ? 2
                                             : pool && element == 2 && run % widths[5] == 0 && p.activated == 0 ? 5
                                             : run % widths[3] == 0                                ? 3
                                             : run % widths[5] == 0 && p.activated == 0            ? 5
                                                                                                   : 1;
    if (p.kernel == 0 && pool && p.width * (last_channels ? p.channels : 1) >= int64_t{1} << 30) out.kernel = 1;
    const int last = conv ? 3 : 5;
    if (out.kernel < 1 || out.kernel > last)
        refuse("kernel is " + text(p.kernel) + "; this form has kernels 1 to " + text(last) + ", and 0 to choose one");
    const int v = conv ? 1 : widths[out.kernel];
    if (pool && out.kernel > 1 && p.width * (last_channels ? p.channels : 1) >= int64_t{1} << 30)
        refuse("kernel " + text(out.kernel) + " needs a row of fewer than 2^30 elements; use kernel 1",
               SUPPORT_MEAN_UNSUPPORTED);
    if (run % v != 0)
        refuse("kernel " + text(out.kernel) + " reads " + text(v) + " elements at once and the " +
                   (!pool ? "map of " + text(map) + " elements"
                    : last_channels ? text(p.channels) + " channels"
                                    : "width " + text(p.width)) +
                   " is no multiple of that; use kernel 0 or 1",
               SUPPORT_MEAN_UNSUPPORTED);
    if (!conv && out.kernel == 4 && p.support_queries != 1)
        refuse("kernel 4 shares one support term between queries and support_term has " + text(p.support_queries) +
                   " queries; use kernel 0 or 3",
               SUPPORT_MEAN_UNSUPPORTED);
    if (!conv && out.kernel >= 4 && p.activated != 0)
        refuse("kernel " + text(out.kernel) + " does not write activated; use kernel 0 or 3", SUPPORT_MEAN_UNSUPPORTED);
    if (conv && out.kernel == 3 && p.dtype == SUPPORT_MEAN_FLOAT32)
        refuse("kernel 3 uses tensor cores on float16 or bfloat16 and dtype is float32; use kernel 0 or 2",
               SUPPORT_MEAN_UNSUPPORTED);
    if (conv && out.kernel >= 2 && !int_offsets)
        refuse("kernel " + text(out.kernel) + " needs height * width below 2^30; use kernel 0 or 1",
               SUPPORT_MEAN_UNSUPPORTED);

    out.vector = out.slices = out.group = 1;
    out.groups = 1;
    out.threads_x = kThreads;
    out.threads_y = 1;
    if (out.kernel == 1) {  // one thread an element or 2x2 square, numbered over queries and sets too
        const int64_t items = pool || conv ? p.channels * ceil_div(p.height, 2) * ceil_div(p.width, 2) : map;
        int64_t all = 0;
        if (__builtin_mul_overflow(items, p.queries * p.sets, &all)) block_count(kMaxSize, kMaxSize, 1);
        out.blocks = out.tiles = block_count(ceil_div(all, kThreads), 1, 1);
        return out;
    }
    if (conv) {
        const bool warps = out.kernel == 3;
        out.threads_x = warps ? MmaTile::kBlock : ConvTile::kBlock;
        out.shared_bytes = static_cast<uint32_t>((warps ? MmaTile::kShared : ConvTile::kShared) * sizeof(float));
        const int64_t tiles = ceil_div(p.height, warps ? MmaTile::kRows : ConvTile::kRows) *
                              ceil_div(p.width, warps ? MmaTile::kColumns : ConvTile::kColumns) *
                              ceil_div(p.channels, warps ? MmaTile::kChannels : ConvTile::kChannels);
        out.groups = static_cast<uint32_t>(p.queries);
        out.blocks = block_count(tiles, p.sets, p.queries);
        out.tiles = static_cast<uint32_t>(tiles);
        return out;
    }
    out.vector = v;
    if (out.kernel == 4) out.group = pool ? 2 : 4;
    const int64_t each = items(v);
    const int64_t groups = ceil_div(p.queries, out.group);
    // As many slices as it takes to have two blocks for each that the device holds at once, so that the last ones to
    // finish leave little of it idle; a power of two, at most 8.
    const int resident = pool ? pool_resident(v, element, out.group, p.activated != 0, last_channels)
                              : mean_resident(v, out.group, p.activated != 0);
    if (out.kernel >= 3)
        while (out.slices < 8 && out.slices * 2 <= p.entries &&
               static_cast<double>(each) * groups * p.sets * out.slices < 2.0 * resident * kThreads * multiprocessors)
            out.slices *= 2;
    out.threads_x = kThreads / out.slices;
    out.threads_y = out.slices;
    const int sums = out.group * (!pool ? v : last_channels ? 5 * v : 2 * v + v / 2);
    out.shared_bytes = out.slices == 1 ? 0 : kThreads * sums * sizeof(float);
    const int64_t tiles = ceil_div(each, out.threads_x);
    out.groups = static_cast<uint32_t>(groups);
    out.blocks = block_count(tiles, p.sets, groups);
    out.tiles = static_cast<uint32_t>(tiles);
    return out;
}

}  // namespace support_mean
}  // namespace universeg
