// Checks a call and plans its launch, without CUDA: shared by the device library, the plugin and the host build.
#pragma once

#include <limits>
#include <stdexcept>
#include <string>

#include "arithmetic.cuh"
#include "support_mean.h"

namespace universeg {
namespace support_mean {

// A refusal: a status and the one line that the caller sees.
class Refused : public std::runtime_error {
public:
    Refused(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
    int status() const { return status_; }

private:
    int status_;
};

constexpr int64_t kMaxSize = std::numeric_limits<int32_t>::max();

[[noreturn]] inline void refuse(const std::string& message, int status = SUPPORT_MEAN_INVALID) {
    throw Refused(status, "support_mean: " + message);
}

inline std::string text(int64_t value) { return std::to_string(value); }

inline size_t element_size(int32_t dtype) { return dtype == SUPPORT_MEAN_FLOAT32 ? 4 : 2; }

// Each throws Refused. `needed_bytes` gives the size of every buffer, 0 for one that the problem
// does not have.
void check_problem(const support_mean_problem& problem);
support_mean_buffers needed_bytes(const support_mean_problem& problem);
void check_buffers(const support_mean_problem& problem, const support_mean_buffers& buffers);
support_mean_launch plan(const support_mean_problem& problem, int multiprocessors);

// The kernels' arguments, from a checked call and its launch.
Args make_args(const support_mean_problem& problem, const support_mean_buffers& buffers,
               const support_mean_launch& launch);

// Runs `body`, turning a refusal into its status and message, and anything else into SUPPORT_MEAN_INVALID.
template <typename Body>
int guarded(char* message, size_t message_size, Body body) noexcept {
    int status = SUPPORT_MEAN_OK;
    try {
        if (message != nullptr && message_size > 0) message[0] = '\0';
        body();
        return SUPPORT_MEAN_OK;
    } catch (const Refused& refused) {
        status = refused.status();
        if (message != nullptr && message_size > 0) {
            std::strncpy(message, refused.what(), message_size - 1);
            message[message_size - 1] = '\0';
        }
    } catch (const std::exception& error) {
        status = SUPPORT_MEAN_INVALID;
        if (message != nullptr && message_size > 0) {
            std::strncpy(message, error.what(), message_size - 1);
            message[message_size - 1] = '\0';
        }
    }
    return status;
}

}  // namespace support_mean
}  // namespace universeg
