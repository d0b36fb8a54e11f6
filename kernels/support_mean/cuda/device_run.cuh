// The __global__ functions around the kernel bodies, and the runner that launches them. Included once for each storage
// type (kernels_*.cu), so that the types compile side by side.
#pragma once

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

inline void require(cudaError_t error, const std::string& call) {
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

extern template void dispatch_typed<float>(const support_mean_problem&, const support_mean_launch&, DeviceRunner&);
extern template void dispatch_typed<Half>(const support_mean_problem&, const support_mean_launch&, DeviceRunner&);
extern template void dispatch_typed<Bfloat>(const support_mean_problem&, const support_mean_launch&, DeviceRunner&);

}  // namespace support_mean
}  // namespace universeg
