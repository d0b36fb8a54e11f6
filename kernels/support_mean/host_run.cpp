// The CPU's grid: blocks and threads as loops, barriers as the ends of loops.
#include "host_run.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "dispatch.cuh"

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
