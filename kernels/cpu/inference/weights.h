// Weights as they come, and as the kernels want them.
#pragma once

#include <vector>

#include "memory.h"

namespace universeg {

// Weights of one convolution as they come: (outputs, inputs, 3, 3) and (outputs,).
struct Conv {
  const float* weight;
  const float* bias;
  int outputs, inputs;
};

// A convolution for Kernels::winograd_row, with its bias.
struct Packed {
  Floats floats, bias;
  Winograd conv{};
};

// Channels padded to whole blocks.
int rounded(int channels, int block);

// The input channels from `from` on; `groups` are those of the maps that will be concatenated, each padded on its own.
Packed pack(const Conv& conv, int from, const std::vector<int>& groups, int block);

// [inputs][9][outputs] for Kernels::small_row.
Floats pack_small(const Conv& conv, int block);

// FirstBlock's weights: `kernels` (9, 2, 5, 5, outputs) with the outputs padded.
Floats pack_first(const float* kernels, int outputs, int block);

// A map's values from and to a planar array (features, height, width); channels beyond `features` are left as they are.
void write_planar(const float* planar, int features, Map& to);
void read_planar(const Map& from, int features, float* planar);

}  // namespace universeg
