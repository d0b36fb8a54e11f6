// support_mean_run: checks, plans, launches; every CUDA call is checked and its error named.
#include "device_run.cuh"

namespace universeg {
namespace support_mean {
namespace {

int attribute(cudaDeviceAttr name) {
    int device = 0, value = 0;
    require(cudaGetDevice(&device), "cudaGetDevice");
    require(cudaDeviceGetAttribute(&value, name, device), "cudaDeviceGetAttribute");
    return value;
}

}  // namespace
}  // namespace support_mean
}  // namespace universeg

extern "C" int support_mean_run(const support_mean_problem* problem, const support_mean_buffers* buffers, void* stream,
                                char* message, size_t message_size) {
    using namespace universeg::support_mean;
    return guarded(message, message_size, [&] {
        if (problem == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "support_mean: problem is NULL");
        if (buffers == nullptr) throw Refused(SUPPORT_MEAN_INVALID, "support_mean: buffers is NULL");
        check_problem(*problem);
        plan(*problem, 1);  // refuses a kernel number that does not serve the shape, before the device is asked
        check_buffers(*problem, *buffers);
        const support_mean_launch launch = plan(*problem, attribute(cudaDevAttrMultiProcessorCount));
        if (problem->form == SUPPORT_MEAN_CONV_POOL && launch.kernel == 3 &&
            attribute(cudaDevAttrComputeCapabilityMajor) < 8)
            throw Refused(SUPPORT_MEAN_UNSUPPORTED,
                          "support_mean: kernel 3 needs compute capability 8.0 or later; use kernel 0 or 2");
        require(cudaPeekAtLastError(), "an earlier CUDA call, not this one,");
        const Args args = make_args(*problem, *buffers, launch);
        DeviceRunner runner{args, launch, static_cast<cudaStream_t>(stream)};
        dispatch(*problem, launch, runner);
    });
}
