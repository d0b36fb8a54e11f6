// The network of a frozen task on the CPU: no support, one constant map a block; see static_network.cpp.
#pragma once

#include <memory>
#include <vector>

#include "network.h"

namespace universeg {

// One block of a frozen task, u' = LeakyReLU(Wt * (Wu * u) + c): its place as in Block, and its two convolutions without bias. Of the
// first block `first` (9, 2, 5, 5, outputs), Wt∘Wu composed for the nine positions of a pixel as FirstBlock has it, the second input's
// kernels zero; its convolutions are not read.
struct StaticBlock {
  Conv query, target;
  int level;
  std::vector<int> sources;
  bool halved;
  const float* first;
};

struct StaticNetwork {
  StaticNetwork(const std::vector<StaticBlock>& blocks, const float* head_weight, float head_bias, float slope,
                const Kernels* kernels, int threads);
  ~StaticNetwork();

  // The constant map of each block, in the layout of the kernels.
  using Constants = std::vector<Map>;
  // maps: (features, height >> level, width >> level) of each block.
  Constants constants(const std::vector<const float*>& maps, int height, int width) const;

  // Logits (count,H,W) of queries (count,H,W). record: as Network::run.
  void run(const Constants& constants, const float* queries, int count, float* logits, std::vector<Loop>* record = nullptr);

  std::vector<std::pair<int, int>> outputs() const;  // (features, level) of each block
  int threads() const;  // that could be started, of those asked for

  const Kernels* const kernels;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace universeg
