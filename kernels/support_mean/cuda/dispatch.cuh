// The table of kernels: from form, type and number to the code, once for the device and for the host.
#pragma once

#include <type_traits>

#include "mma_kernels.cuh"
#include "support_mean.h"

namespace universeg {
namespace support_mean {

// Both call runner.simple<Body>(), runner.split<Body>() runner.tiled<Body>() or
// runner.warps<Body, T>(), by how the kernel uses its block:
// `simple` has no barrier, `split` one after its sums, `tiled` one around every support entry, `warps` as tiled with
// products that a warp computes together.
template <typename T, bool Hwc, typename Runner>
void dispatch_pool(const support_mean_problem& problem, const support_mean_launch& launch, Runner& runner) {
    constexpr int kWide = 16 / static_cast<int>(sizeof(T)), kNarrow = kWide / 2;
    if (launch.kernel == 1) return runner.template simple<Pool1<T, Hwc>>();
    if (launch.kernel == 4) return runner.template split<PoolVector<T, 4, 2, false, Hwc>>();
    if (launch.kernel == 5) return runner.template split<PoolVector<T, kNarrow, 1, false, Hwc>>();
    if (problem.activated != 0) return runner.template split<PoolVector<T, kWide, 1, true, Hwc>>();
    runner.template split<PoolVector<T, kWide, 1, false, Hwc>>();
}

template <typename T, typename Runner>
void dispatch_typed(const support_mean_problem& problem, const support_mean_launch& launch, Runner& runner) {
    const int form = problem.form;
    const bool activated = problem.activated != 0;
    constexpr int kWide = 16 / static_cast<int>(sizeof(T)), kNarrow = kWide / 2;
    if (form == SUPPORT_MEAN) {
        if (launch.kernel == 1) return runner.template simple<Mean1<T>>();
        if (launch.kernel == 4) return runner.template split<MeanVector<T, 4, 4, false>>();
        if (launch.kernel == 5) return runner.template split<MeanVector<T, kNarrow, 1, false>>();
        if (activated) return runner.template split<MeanVector<T, kWide, 1, true>>();
        return runner.template split<MeanVector<T, kWide, 1, false>>();
    }
    if (form == SUPPORT_MEAN_POOL)
        return problem.layout == SUPPORT_MEAN_CHANNELS_LAST ? dispatch_pool<T, true>(problem, launch, runner)
                                                            : dispatch_pool<T, false>(problem, launch, runner);
    if (launch.kernel == 1) return runner.template simple<Conv1<T>>();
    if constexpr (!std::is_same<T, float>::value) {
        if (launch.kernel == 3) return runner.template warps<Conv3<T>, T>();
    }
    runner.template tiled<Conv2<T>>();
}

template <typename Runner>
void dispatch(const support_mean_problem& problem, const support_mean_launch& launch, Runner& runner) {
    if (problem.dtype == SUPPORT_MEAN_FLOAT32) return dispatch_typed<float>(problem, launch, runner);
    if (problem.dtype == SUPPORT_MEAN_FLOAT16) return dispatch_typed<Half>(problem, launch, runner);
    dispatch_typed<Bfloat>(problem, launch, runner);
}

}  // namespace support_mean
}  // namespace universeg
