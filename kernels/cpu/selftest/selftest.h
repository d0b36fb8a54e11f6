// What the parts of the self-test share: random networks.
#pragma once

#include <random>
#include <vector>

#include "network.h"

namespace universeg {

struct Weights {
  std::vector<std::vector<float>> arrays;
  std::mt19937 random;

  explicit Weights(unsigned seed) : random(seed) {}

  const float* make(size_t count, float scale) {
    std::normal_distribution<float> normal(0.f, scale);
    arrays.emplace_back(count);
    for (float& x : arrays.back()) x = normal(random);
    return arrays.back().data();
  }
  Conv conv(int outputs, int inputs) { return {make((size_t)outputs * inputs * 9, 0.2f), make(outputs, 0.1f), outputs, inputs}; }
};

// A block's place in its network: universeg_rt/spec.py states it, a file of networks passes it on.
struct Place {
  int features, query_channels, support_channels, level;
  bool halved;
  std::vector<int> sources;
};
using Places = std::vector<Place>;

// The networks of a file: of each the number of its blocks, then of each block, in numbers, its place in the order of Place and
// before its sources how many they are. Empty where the file holds something else.
std::vector<Places> read_networks(const char* path);

// Its blocks with random weights. In int8 the maps are tens of steps large.
std::vector<Block> make_blocks(Weights& weights, const Places& places, bool bytes);

}  // namespace universeg

// Each returns how many checks failed and prints which.
int check_shapes(const std::vector<universeg::Places>& networks, unsigned seed);  // selftest_shapes.cpp
int check_static(const std::vector<universeg::Places>& networks, unsigned seed);  // selftest_static.cpp
int check_training();                                                             // selftest_training.cpp
