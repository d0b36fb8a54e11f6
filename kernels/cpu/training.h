// The 3x3 convolution and its weights' gradient by Winograd's F(4x4,3x3), for training on a CPU. Maps are dense, channels
// innermost: (count, height, width, channels); channels are multiples of Kernels::block, pointers aligned to 64 bytes.
#pragma once

#include "kernels.h"
#include "pool.h"

namespace universeg {

struct Maps {
  const float* data;
  int count, height, width, channels;
};

// out (count, height, width, outputs) = x * weights + bias, with zeros around x; weights as in Winograd, bias may be null.
void convolve(const Kernels&, Pool&, const Maps& x, const float* weights, int outputs, const float* bias, float* out);

// sums [36][inputs][outputs]: the gradient of the transformed weights. Each thread sums its share of the rows, so that the last
// bits depend on the number of threads.
void convolve_gradient(const Kernels&, Pool&, const Maps& x, const Maps& gradient, float* sums);

}  // namespace universeg
