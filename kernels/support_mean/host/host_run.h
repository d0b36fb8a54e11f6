// Runs the kernels on the CPU: the same bodies, block by block and thread by thread, under the audit of audit.h.
#pragma once

#include "problem.h"

namespace universeg {
namespace support_mean {

// Order of a block's threads between two barriers. A result that changes with the order is a race: a thread read what
// another one writes between the same two barriers.
enum class Order { Forward, Reverse, Shuffled };

// Checks, plans and runs a problem whose buffers lie in host memory. Throws Refused as support_mean_run would refuse,
// std::logic_error where the audit finds a wrong access. last_block = 0 means all blocks; with fewer, outputs that
// were left unwritten are not reported.
support_mean_launch run_on_host(const support_mean_problem& problem, const support_mean_buffers& buffers,
                                int multiprocessors, Order order, uint32_t first_block = 0, uint32_t last_block = 0,
                                bool audited = true);

}  // namespace support_mean
}  // namespace universeg
