#include "workspace.h"

#include <algorithm>
#include <new>

namespace universeg {

namespace {

#ifndef UNIVERSEG_CHUNK_BYTES  // a test makes small networks go through in several chunks
#define UNIVERSEG_CHUNK_BYTES (4L << 20)
#endif
#ifndef UNIVERSEG_TERM_BYTES  // a test lets only some entries of a support have their terms kept
#define UNIVERSEG_TERM_BYTES (64L << 20)
#endif
constexpr size_t TERM_BYTES = UNIVERSEG_TERM_BYTES;  // of 16 entries at 128x128
constexpr long CHUNK_BYTES = UNIVERSEG_CHUNK_BYTES;  // of an entry's largest map in float32, for the entries that go through a pair together

// One of `pool` with room for these maps, or a new one. Only maps of one shape share memory: what is around the image is zero.
Map shared(std::vector<Map>& pool, int height, int width, int channels, int entries, bool bytes) {
  for (const Map& m : pool)
    if (m.shape.height == height && m.shape.width == width && m.shape.channels == channels && m.shape.bytes == bytes &&
        m.entries >= entries)
      return m;
  pool.emplace_back(height, width, channels, entries, bytes);
  return pool.back();
}

}  // namespace

Workspace::Workspace(const std::vector<Layer>& layers, const Kernels* kernels, int threads, int entries_,
                     int height_, int width_)
    : height(height_), width(width_), entries(entries_) {
  const int n = (int)layers.size();
  for (auto* maps : {&q, &z, &r, &u, &u_down, &mean, &mean_down, &up, &kept, &passed, &term, &resized}) maps->resize(n);
  chunk.resize(n);
  std::vector<Map> terms, inputs;  // of chunks; a block has read its input when it passes its own result on
  auto channels = [&](int i) { return rounded(layers[i].features, kernels->block); };
  long most_scratch = 0;
  for (int i = 0; i < n; ++i) {
    const Layer& layer = layers[i];
    const int h = height >> layer.level, w = width >> layer.level, c = channels(i);
    const int even = i - i % 2;  // both blocks of a pair work on one chunk, which follows from the larger maps and the wider block
    int largest = 31, widest = 0;
    for (int j = even; j < std::min(even + 2, n); ++j)
      largest = std::min(largest, std::max(layers[j].level, 1)), widest = std::max(widest, channels(j));
    const long bytes = (long)(height >> largest) * (width >> largest) * widest * 4;
    const int some = chunk[i] = (int)std::max(1L, std::min<long>(entries, CHUNK_BYTES / bytes));
    // A decoder block works where the encoder block of its level has worked. Not where r of the first block lies: all of an
    // ensemble's members need it.
    const int skip = layer.doubles ? layer.sources[1] : i;
    const bool twin = layer.doubles && channels(skip) == c;
    q[i] = twin ? q[skip] : Map(h, w, c);
    z[i] = twin ? z[skip] : Map(h, w, c);
    u[i] = twin && skip > 0 ? r[skip] : Map(h, w, c);
    if (layer.doubles) up[i] = channels(i - 1) == c ? u[i] : Map(h, w, channels(i - 1));
    if (layer.pools) u_down[i] = Map(h / 2, w / 2, c);
    if (layer.has_entries) {
      r[i] = Map(h, w, c);
      mean[i] = Map(h, w, c);
      if (layer.pools) mean_down[i] = Map(h / 2, w / 2, c);
      if (i > 0) term[i] = shared(terms, h, w, c, some, layer.term_bytes);
      const bool is_first = i % 2 == 0, is_last = i == n - 2, is_skipped = layer.pools && i > 0;
      if (is_skipped || (!is_first && !is_last)) kept[i] = Map(h, w, c, entries, layer.out_bytes);
      const int down = layer.pools ? 2 : 1;
      if (is_first) passed[i] = shared(inputs, h / down, w / down, c, some, layer.out_bytes);
      if (i > 0 && (layer.doubles || is_first))
        resized[i] = shared(inputs, h, w, channels(i - 1), some, layers[i - 1].out_bytes);
    }
    most_scratch = std::max(most_scratch, kernels->scratch_floats(std::max(layer.query.conv.inputs, c), c));
  }
  query_planar = Floats((size_t)(height + 2) * (width + 2));
  mixed_planar = Floats(3 * (size_t)(height + 2) * (width + 2));
  for (int i = 0; i < threads; ++i) scratch.emplace_back(most_scratch);
}

void Workspace::reserve_terms(int entries) {
  const int some = (int)std::min<size_t>(entries, TERM_BYTES / (term_size() * sizeof(float)));
  if (some <= terms_kept) return;
  terms = Floats(), terms_kept = 0;  // the old ones' memory is free before the new ones' is taken
  try {
    terms = Floats(some * term_size()), terms_kept = some;
  } catch (const std::bad_alloc&) {  // then queries share nothing, and take no more memory than one alone
  }
}

}  // namespace universeg
