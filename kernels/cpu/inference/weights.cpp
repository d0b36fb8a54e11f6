#include "weights.h"

#include <algorithm>

namespace universeg {

namespace {

// Rows of G in F(4x4,3x3).
constexpr double G[6][3] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                            {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};

}  // namespace

int rounded(int channels, int block) { return (channels + block - 1) / block * block; }

Packed pack(const Conv& conv, int from, const std::vector<int>& groups, int block) {
  Packed out;
  const int outputs = rounded(conv.outputs, block);
  std::vector<int> input;  // padded index -> input channel, or -1
  int channel = from;
  for (int group : groups)
    for (int i = 0; i < rounded(group, block); ++i) input.push_back(i < group ? channel++ : -1);
  const int inputs = (int)input.size();
  out.floats = Floats(36 * (size_t)inputs * outputs);
  for (int o = 0; o < conv.outputs; ++o)
    for (int k = 0; k < inputs; ++k) {
      if (input[k] < 0) continue;
      const float* g = conv.weight + ((size_t)o * conv.inputs + input[k]) * 9;
      double half[6][3];
      for (int i = 0; i < 6; ++i)
        for (int x = 0; x < 3; ++x) half[i][x] = G[i][0] * g[x] + G[i][1] * g[3 + x] + G[i][2] * g[6 + x];
      for (int p = 0; p < 36; ++p) {
        const double* h = half[p / 6];
        const double value = G[p % 6][0] * h[0] + G[p % 6][1] * h[1] + G[p % 6][2] * h[2];
        out.floats.get()[((size_t)(p * (outputs / block) + o / block) * inputs + k) * block + o % block] = (float)value;
      }
    }
  out.bias = Floats(outputs);
  if (conv.bias) std::copy_n(conv.bias, conv.outputs, out.bias.get());
  out.conv = {out.floats.get(), inputs, outputs};
  return out;
}

Floats pack_small(const Conv& conv, int block) {
  const int outputs = rounded(conv.outputs, block);
  Floats out((size_t)conv.inputs * 9 * outputs);
  for (int o = 0; o < conv.outputs; ++o)
    for (int i = 0; i < conv.inputs * 9; ++i) out.get()[(size_t)i * outputs + o] = conv.weight[(size_t)o * conv.inputs * 9 + i];
  return out;
}

Floats pack_first(const float* kernels, int outputs, int block) {
  const int padded = rounded(outputs, block);
  Floats out(9 * 50 * (size_t)padded);
  for (int i = 0; i < 9 * 50; ++i) std::copy_n(kernels + (size_t)i * outputs, outputs, out.get() + (size_t)i * padded);
  return out;
}

void write_planar(const float* planar, int features, Map& to) {
  const Shape& s = to.shape;
  for (int y = 0; y < s.height; ++y)
    for (int x = 0; x < s.width; ++x)
      for (int c = 0; c < features; ++c)
        to.floats()[((y + 1L) * s.pitch + x + 1) * s.channels + c] = planar[((long)c * s.height + y) * s.width + x];
}

void read_planar(const Map& from, int features, float* planar) {
  const Shape& s = from.shape;
  for (int c = 0; c < features; ++c)
    for (int y = 0; y < s.height; ++y)
      for (int x = 0; x < s.width; ++x)
        planar[((long)c * s.height + y) * s.width + x] = from.floats()[((y + 1L) * s.pitch + x + 1) * s.channels + c];
}

}  // namespace universeg
