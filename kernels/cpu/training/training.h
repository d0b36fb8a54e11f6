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

// out (count, height, width, outputs) = x * weights + bias, with zeros around x; weights as in Winograd, bias may be null (and need not be aligned).
void convolve(const Kernels&, Pool&, const Maps& x, const float* weights, int outputs, const float* bias, float* out);

// sums [36][inputs][outputs]: the gradient of the transformed weights. Each thread sums its share of the rows, so that the last
// bits depend on the number of threads.
void convolve_gradient(const Kernels&, Pool&, const Maps& x, const Maps& gradient, float* sums);

// The first block of one query and its support: images (entries, 2, height, width), weights as in FirstPair, add and mean
// (height, width, outputs), pooled (entries, height / 2, width / 2, outputs).
struct FirstMaps {
  const float *weights, *images, *add, *entry_weights;
  int entries, height, width, outputs;
  float slope;
};
void first_forward(const Kernels&, Pool&, const FirstMaps&, float* pooled, float* mean);

// From the gradients of pooled and mean to those of add and of the weights, which is added to sums [9][2][25][outputs].
void first_backward(const Kernels&, Pool&, const FirstMaps&, const float* pooled, const float* mean, float* add, float* sums);

}  // namespace universeg
