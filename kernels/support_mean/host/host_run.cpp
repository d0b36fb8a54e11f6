// The CPU's grid: blocks and threads as loops, barriers as the ends of loops.
#include "host_run.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "dispatch.cuh"
#include "mma.cuh"

namespace universeg {
namespace support_mean {

namespace {

struct HostRunner {
    const Args& args;
    const support_mean_launch& launch;
    Order order;
    uint32_t first_block, last_block;  // [first, last): all blocks, or a few of a problem too large for the CPU
    std::mt19937 random{7};

    // Calls visit(thread number, place) for every thread of a block.
    template <typename Visit>
    void threads(uint32_t block, Visit visit) {
        const int count = static_cast<int>(launch.threads_x * launch.threads_y);
        std::vector<int> numbers(count);
        for (int i = 0; i < count; ++i) numbers[i] = order == Order::Reverse ? count - 1 - i : i;
        if (order == Order::Shuffled) std::shuffle(numbers.begin(), numbers.end(), random);
        const int nx = static_cast<int>(launch.threads_x), ny = static_cast<int>(launch.threads_y);
        for (int i : numbers) visit(i, Place{block, i % nx, i / nx, nx, ny});
    }

    // Fresh shared memory holds NaN, so that reading what nobody wrote shows.
    std::vector<float> fresh_shared() const {
        return std::vector<float>(launch.shared_bytes / sizeof(float), std::numeric_limits<float>::quiet_NaN());
    }

    template <typename Body>
    void simple() {
        for (uint32_t block = first_block; block < last_block; ++block)
            threads(block, [&](int, const Place& at) { Body::run(args, at); });
    }

    template <typename Body>
    void split() {
        std::vector<Body> bodies(launch.threads_x * launch.threads_y);
        for (uint32_t block = first_block; block < last_block; ++block) {
            std::vector<float> shared = fresh_shared();
            threads(block, [&](int i, const Place& at) { bodies[i].accumulate(args, at); });
            if (launch.threads_y == 1) {
                threads(block, [&](int i, const Place& at) { bodies[i].write(args, at); });
                continue;
            }
            threads(block, [&](int i, const Place& at) { bodies[i].publish(at, shared.data()); });
            threads(block, [&](int i, const Place& at) { bodies[i].finish(args, at, shared.data()); });
        }
    }

    template <typename Body>
    void tiled() {
        std::vector<Body> bodies(launch.threads_x * launch.threads_y);
        for (uint32_t block = first_block; block < last_block; ++block) {
            std::vector<float> shared = fresh_shared();
            threads(block, [&](int i, const Place& at) { bodies[i].begin(args, at, shared.data()); });
            for (int64_t s = 0; s < args.entries; ++s)
                threads(block, [&](int i, const Place& at) { bodies[i].step(args, at, shared.data(), s); });
            threads(block, [&](int i, const Place&) { bodies[i].finish(args); });
        }
    }

    template <typename Body, typename T>
    void warps() {
        std::vector<Body> bodies(Body::kBlock);
        for (uint32_t block = first_block; block < last_block; ++block) {
            std::vector<float> shared = fresh_shared();
            threads(block, [&](int i, const Place& at) { bodies[i].begin(args, at, shared.data()); });
            for (int64_t first = 0; first < args.entries; first += Body::kStage) {
                const int buffer = static_cast<int>(first / Body::kStage % 2);
                threads(block, [&](int i, const Place&) { bodies[i].fetch(args, first + Body::kStage); });
                for (int j = 0; j < Body::kStage && first + j < args.entries; ++j) {
                    const float* halo = shared.data() + buffer * Body::kWords + j * Body::kMap;
                    for (int warp = 0; warp < Body::kWarps; ++warp)
                        warp_step<Body, T>(&bodies[warp * 32], shared.data(), halo, first + j);
                }
                threads(block, [&](int i, const Place& at) { bodies[i].stash(at, shared.data(), 1 - buffer); });
            }
            threads(block, [&](int i, const Place&) { bodies[i].finish(args); });
        }
    }

    // What a warp does with one entry, its 32 lanes side by side.
    template <typename Body, typename T>
    void warp_step(Body* lanes, const float* shared, const float* halo, int64_t s) {
        uint32_t fragment[32][2][Body::kFragment];
        MmaTerm term[32];
        for (int lane = 0; lane < 32; ++lane) {
            lanes[lane].gather(halo, fragment[lane]);
            lanes[lane].start(term[lane]);
        }
        for (int p = 0; p < 2; ++p)
            for (int n = 0; n < 2; ++n)
                for (int step = 0; step <= Body::kSteps; ++step)
                    for (int part = 0; part < (step < Body::kSteps ? 2 : 1); ++part) {
                        float* d[32];
                        const uint32_t *rows[32], *columns[32];
                        for (int lane = 0; lane < 32; ++lane) {
                            d[lane] = term[lane][p][n];
                            rows[lane] = &fragment[lane][p][step * 4];
                            const MmaTaps& taps = lanes[lane].taps;
                            columns[lane] = step < Body::kSteps ? taps.wide[step][n][part] : &taps.last[n];
                        }
                        if (step < Body::kSteps) {
                            mma_on_host<T, 4>(d, rows, columns);
                        } else {
                            mma_on_host<T, 2>(d, rows, columns);
                        }
                    }
        for (int lane = 0; lane < 32; ++lane) lanes[lane].consume(args, shared, halo, s, term[lane]);
    }
};

}  // namespace

support_mean_launch run_on_host(const support_mean_problem& problem, const support_mean_buffers& buffers,
                                       int multiprocessors, Order order, uint32_t first_block,
                                       uint32_t last_block, bool audited) {
    check_problem(problem);
    check_buffers(problem, buffers);
    const support_mean_launch launch = plan(problem, multiprocessors);
    const Args args = make_args(problem, buffers, launch);
    HostRunner runner{args, launch, order, first_block, last_block == 0 ? launch.blocks : last_block};
    if (!audited) {
        dispatch(problem, launch, runner);
        return launch;
    }
    const support_mean_buffers needed = needed_bytes(problem);
    audit::Session session;
    session.add("support", buffers.support.data, needed.support.bytes, false);
    session.add("query", buffers.query.data, needed.query.bytes, false);
    session.add("weights", buffers.weights.data, needed.weights.bytes, false);
    session.add("convolution", buffers.convolution.data, needed.convolution.bytes, false);
    session.add("border", buffers.border.data, needed.border.bytes, false);
    session.add("mean", buffers.mean.data, needed.mean.bytes, true);
    session.add("pooled_mean", buffers.pooled_mean.data, needed.pooled_mean.bytes, true);
    session.add("pooled", buffers.pooled.data, needed.pooled.bytes, true);
    session.add("activated", buffers.activated.data, needed.activated.bytes, true);
    dispatch(problem, launch, runner);
    if (first_block == 0 && last_block == 0) session.finish();
    return launch;
}

}  // namespace support_mean
}  // namespace universeg
