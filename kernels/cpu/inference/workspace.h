// A block's weights as the kernels want them, and the maps that a run of all blocks works on.
#pragma once

#include <vector>

#include "weights.h"

namespace universeg {

struct Layer {
  Packed query, mean, support, target;  // query, mean: parts of the cross convolution that read the query and the support
  bool doubles, pools, has_entries;  // whether its first source is doubled, its own output halved; whether it gives entries
  bool out_bytes, term_bytes;  // held in int8: the entries that it gives, and their cross convolution's result
  int level, features;
  std::vector<int> sources;  // as in Block
  std::vector<int> groups;  // channels of each input map
};

// One map (or chunk, or set) for each block, where the block has it. Some are the same memory: see the constructor.
struct Workspace {
  int height = 0, width = 0, entries = 0;
  std::vector<int> chunk;  // entries that go through a block together
  std::vector<Map> q, z, r, u, u_down, mean, mean_down, up;
  // Of the entries: kept for the skip connections and the next pair; of one chunk: from a pair's first block to its second,
  // the cross convolution's result, and what was upsampled or pooled to be read.
  std::vector<Map> kept, passed, term, resized;
  Floats query_planar, mixed_planar;
  std::vector<Floats> scratch;  // of each thread
  Floats terms;  // as FirstTerms has them, of the first `terms_kept` entries of a run
  int terms_kept = 0;

  Workspace() = default;
  Workspace(const std::vector<Layer>& layers, const Kernels* kernels, int threads, int entries, int height, int width);

  size_t term_size() const { return (size_t)height * width * z[0].shape.channels; }  // floats of an entry
  // Room for the terms of `entries` entries, or of as many as TERM_BYTES hold; of none where memory is short.
  void reserve_terms(int entries);
};

}  // namespace universeg
