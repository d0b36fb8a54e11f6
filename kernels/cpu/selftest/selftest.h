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

// The blocks of a network of these features. In int8 the maps are tens of steps large.
std::vector<Block> make_blocks(Weights& weights, const std::vector<int>& encoder, const std::vector<int>& decoder, bool bytes);

}  // namespace universeg

// Each returns how many checks failed and prints which.
int check_shapes(int count, unsigned seed);  // selftest_shapes.cpp
int check_training();                        // selftest_training.cpp
