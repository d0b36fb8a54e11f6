// The kernels themselves and support_mean_run: every CUDA call is checked and its error named.
#include <cuda_runtime.h>

#include "dispatch.cuh"
#include "mma.cuh"
#include "problem.h"

namespace universeg {
namespace support_mean {

__device__ __forceinline__ Place here() {
    return {blockIdx.x, static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.y), static_cast<int>(blockDim.x),
            static_cast<int>(blockDim.y)};
}

template <typename Body>
__global__ void __launch_bounds__(kThreads) simple_kernel(const Args a) {
    Body::run(a, here());
}

template <typename Body>
__global__ void __launch_bounds__(kThreads, Body::kResident) split_kernel(const Args a) {
    extern __shared__ float shared[];
    const Place at = here();
    Body body;
    body.accumulate(a, at);
    if (at.size_y == 1) return body.write(a, at);
    body.publish(at, shared);
    __syncthreads();
    body.finish(a, at, shared);
}

template <typename Body>
__global__ void __launch_bounds__(Body::kBlock, Body::kResident) tiled_kernel(const Args a) {
    extern __shared__ float shared[];
    const Place at = here();
    Body body;
    body.begin(a, at, shared);
    for (int64_t s = 0; s < a.entries; ++s) {
        __syncthreads();
        body.step(a, at, shared, s);
    }
    body.finish(a);
}

template <typename Body, typename T>
__global__ void __launch_bounds__(Body::kBlock, Body::kResident) warps_kernel(const Args a) {
    extern __shared__ float shared[];
    const Place at = here();
    Body body;
    body.begin(a, at, shared);
    for (int64_t first = 0; first < a.entries; first += Body::kStage) {
        const int buffer = static_cast<int>(first / Body::kStage % 2);
        __syncthreads();
        body.fetch(a, first + Body::kStage);
        for (int j = 0; j < Body::kStage && first + j < a.entries; ++j) {
            const float* halo = shared + buffer * Body::kWords + j * Body::kMap;
            uint32_t fragment[2][Body::kFragment];
            MmaTerm term;
            body.gather(halo, fragment);
            body.start(term);
            __syncwarp();  // a border pixel's correction parts the lanes; the product needs all 32
            multiply<T>(fragment, body.taps, term);
            body.consume(a, shared, halo, first + j, term);
        }
        body.stash(at, shared, 1 - buffer);
    }
    body.finish(a);
}

namespace {

void require(cudaError_t error, const std::string& call) {
    if (error != cudaSuccess)
        throw Refused(SUPPORT_MEAN_CUDA, "support_mean: " + call + " failed: " + cudaGetErrorName(error) + " (" +
                                             cudaGetErrorString(error) + ")");
}

struct DeviceRunner {
    const Args& args;
    const support_mean_launch& launch;
    cudaStream_t stream;

    template <typename Body>
    void simple() {
        start(simple_kernel<Body>);
    }
    template <typename Body>
    void split() {
        start(split_kernel<Body>);
    }
    template <typename Body>
    void tiled() {
        start(tiled_kernel<Body>);
    }
    template <typename Body, typename T>
    void warps() {
        start(warps_kernel<Body, T>);
    }

    void start(void (*kernel)(const Args)) {
        kernel<<<dim3(launch.blocks), dim3(launch.threads_x, launch.threads_y), launch.shared_bytes, stream>>>(args);
        require(cudaGetLastError(), "launch of kernel " + std::to_string(launch.kernel) + " with " +
                                        std::to_string(launch.blocks) + " blocks");
    }
};

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
