// The folded network on the CPU: support prepared once, queries run through it; see network.cpp for the order of work.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pool.h"
#include "weights.h"

namespace universeg {

// One CrossBlock, in its place in the network as universeg_rt/spec.py states it (BlockSpec). level: how often the image is halved
// before it. sources: the blocks whose outputs it reads, in the order of its input channels: none for the first; one, read halved; or
// two, the first of them doubled. The last block has no support convolution (null weight). first: of the first block, its composed kernels
// (9, 2, 5, 5, outputs). out_bytes, term_bytes: whether the entries that it gives and their cross convolution's result are held in
// int8; the first block has no such result, the last but one gives no entries.
struct Block {
  Conv cross, target, support;
  int query_channels, level;
  std::vector<int> sources;
  bool halved;  // whether a block reads its output at half the size
  const float* first;
  bool out_bytes, term_bytes;
};

struct Network {
  // The order of work needs each block to read the one before it first.
  Network(const std::vector<Block>& blocks, const float* head_weight, float head_bias, float slope,
          const Kernels* kernels, int threads);
  ~Network();

  // A support set: its entries (S,2,H,W), which are not copied and must outlive it, their weights (S), the weighted mean of
  // images and labels, and where the labels are constant (see Images).
  struct Prepared {
    const float* entries;
    Floats mean, weights;
    std::vector<unsigned char> labels;
    int count, height, width;
  };
  static Prepared prepare(const float* entries, const float* weights, int count, int height, int width);

  // Logits (B,K,H,W) of B queries (B,H,W) for K prepared supports of their size. Queries share the first block's convolution of
  // the entries, as far as there is room. constants: nothing, or for each block where
  // c = Wt * (b + Wv * mean_i(v_i)) + bt goes, by which u' = LeakyReLU(Wt * (Wu * u) + c): (B, K, features, height >> level, width >> level).
  // record: where the run's loops are wanted (see Pool::record).
  void run(const std::vector<const Prepared*>& supports, const float* queries, int count, float* logits,
           const std::vector<float*>& constants = {}, std::vector<Loop>* record = nullptr);

  std::vector<std::pair<int, int>> outputs() const;  // (features, level) of each block
  int threads() const;  // that could be started, of those asked for
  int size_multiple() const { return multiple; }  // of height and width

  const Kernels* const kernels;
  const int multiple;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The kernels that run a network of these features fastest here: channels are padded to whole blocks, so that the longest vectors
// lose where few channels fill them.
const Kernels* fastest_kernels(const std::vector<Block>& blocks);

// Those with the longest vectors that this processor has ("auto"), or those that are named; null where they cannot run here.
const Kernels* choose_kernels(const std::string& name);
std::vector<std::string> available_kernels();

}  // namespace universeg
