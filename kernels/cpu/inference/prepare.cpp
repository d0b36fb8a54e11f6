// What can be done with a support set before a query is there.
#include <algorithm>

#include "network.h"

namespace universeg {

namespace {

// What a label is in a 6x6 window: 0 or 1 all over, or MIXED.
unsigned char window_of(const float* corner, int pitch) {
  const float first = *corner;
  if (first != 0.f && first != 1.f) return MIXED;
  for (int y = 0; y < 6; ++y)
    for (int x = 0; x < 6; ++x)
      if (corner[y * pitch + x] != first) return MIXED;
  return (unsigned char)first;
}

}  // namespace

Network::Prepared Network::prepare(const float* entries, const float* weights, int count, int height, int width) {
  Prepared out;
  out.entries = entries, out.count = count, out.height = height, out.width = width;
  const size_t plane = (size_t)height * width, mean_plane = (size_t)(height + 2) * (width + 2);
  out.mean = Floats(2 * mean_plane);
  out.weights = Floats(count);
  std::copy_n(weights, count, out.weights.get());
  for (int i = 0; i < 2 * count; ++i)
    for (int y = 0; y < height; ++y) {
      const float* from = entries + i * plane + (size_t)y * width;
      float* mean = out.mean.get() + i % 2 * mean_plane + (size_t)(y + 1) * (width + 2) + 1;
      for (int x = 0; x < width; ++x) mean[x] += weights[i / 2] * from[x];
    }
  out.labels.resize((size_t)count * (height / 2) * (width / 2), MIXED);
  for (int i = 0; i < count; ++i) {
    const float* label = entries + (2 * i + 1) * plane;
    unsigned char* to = out.labels.data() + (size_t)i * (height / 2) * (width / 2);
    for (int y = 2; y + 3 < height; y += 2)
      for (int x = 2; x + 3 < width; x += 2)
        to[(size_t)(y / 2) * (width / 2) + x / 2] = window_of(label + (size_t)(y - 2) * width + x - 2, width);
  }
  return out;
}

}  // namespace universeg
