// Order of work. Block i's support entries need the query's state before the block, and that needs the mean of the
// entries two blocks back. So blocks go in pairs: both blocks of a pair run on a few entries at a time, while these are in
// the cache, and only the means join the entries together. Full-resolution maps of an entry are never stored at all.
//
// Loops are shared out by rows of the image and, of convolutions, by output channels and entries: one thread sums a mean, in the order
// of the entries, so that results do not depend on the number of threads.
#include "network.h"

#include <algorithm>
#include <mutex>
#include <new>

#include "loops.h"
#include "workspace.h"

namespace universeg {

struct Network::Impl {
  std::vector<Layer> layers;
  Floats first, label_sum, first_query, first_mixed, head;
  float head_bias, slope;
  const Kernels* k;
  Pool pool;
  Workspace w;
  float** constants = nullptr;  // where this run's constant maps go, block by block; null: nobody wants them
  FirstTerms terms{};  // of the support at hand
  Turn turn{[this] { new (&w) Workspace; }};  // of callers, one at a time

  Impl(const std::vector<Block>& blocks, const float* head_weight, float head_bias_, float slope_,
       const Kernels* kernels, int threads)
      : head_bias(head_bias_), slope(slope_), k(kernels), pool(threads) {
    const int block = k->block;
    for (int i = 0; i < (int)blocks.size(); ++i) {
      const Block& b = blocks[i];
      Layer layer;
      layer.doubles = b.sources.size() == 2;
      layer.level = b.level, layer.sources = b.sources;
      layer.features = b.cross.outputs;
      layer.pools = b.halved;
      layer.has_entries = b.support.weight != nullptr;
      layer.out_bytes = b.out_bytes, layer.term_bytes = b.term_bytes;
      if (i > 0) {
        for (int source : b.sources) layer.groups.push_back(layers[source].features);
        Conv without_bias = b.cross;
        without_bias.bias = nullptr;
        layer.query = pack(b.cross, 0, layer.groups, block);
        layer.mean = pack(without_bias, b.query_channels, layer.groups, block);
      }
      if (layer.has_entries) layer.support = pack(b.support, 0, {layer.features}, block);
      layer.target = pack(b.target, 0, {layer.features}, block);
      if (i == 0) layer.query.bias = pack(b.cross, 0, {1}, block).bias;
      layers.push_back(std::move(layer));
    }
    const Block& b = blocks[0];
    const int outputs = rounded(b.cross.outputs, block);
    first = pack_first(b.first, b.cross.outputs, block);
    label_sum = Floats(outputs);
    for (int tap = 0; tap < 25; ++tap)
      for (int o = 0; o < outputs; ++o) label_sum.get()[o] += first.get()[((4 * 2 + 1) * 25 + tap) * (size_t)outputs + o];
    first_mixed = pack_small(b.cross, block);
    first_query = Floats(9 * (size_t)outputs);
    std::copy_n(first_mixed.get(), 9 * outputs, first_query.get());
    head = Floats(rounded(blocks.back().cross.outputs, block));
    std::copy_n(head_weight, blocks.back().cross.outputs, head.get());
  }

  int channels(int i) const { return rounded(layers[i].features, k->block); }

  void reserve(int entries, int height, int width) {
    if (height == w.height && width == w.width && entries <= w.entries) return;
    w = Workspace();  // the old one's memory is free before the new one's is taken
    w = Workspace(layers, k, pool.threads(), entries, height, width);
  }

  void convolve(const Packed& conv, const std::vector<Source>& sources, const Shape& shape, int entries, const Epilogue& e) {
    universeg::convolve(pool, *k, conv, sources, shape, entries, e, w.scratch);
  }

  static void write_out(Epilogue& e, const Map& to, int from = 0) {
    e.out = to.at(from), e.out_stride = to.stride, e.out_bytes = to.shape.bytes;
  }
  static void write_pooled(Epilogue& e, const Map& to) {
    e.pooled = to.at(0), e.pooled_stride = to.stride, e.pooled_pitch = to.shape.pitch, e.pooled_bytes = to.shape.bytes;
  }

  Epilogue plain(const float* bias, const float* add, const Map& out) {
    Epilogue e{};
    e.bias = bias, e.add = add, e.slope = slope;
    write_out(e, out);
    return e;
  }

  void upsample(const Map& from, int at, const Map& to, int count) { resize(pool, k->upsample_row, from, at, to, count); }

  // The query's inputs of block i, as sources.
  std::vector<Source> query_sources(int i) {
    if (!layers[i].doubles) return {w.u_down[i - 1].source()};
    upsample(w.u[i - 1], 0, w.up[i], 1);
    return {w.up[i].source(), w.u[layers[i].sources[1]].source()};
  }

  std::vector<Source> mean_sources(int i) {
    if (!layers[i].doubles) return {w.mean_down[i - 1].source()};
    upsample(w.mean[i - 1], 0, w.up[i], 1);
    return {w.up[i].source(), w.mean[layers[i].sources[1]].source()};
  }

  // q = Wu * u + b, and r = Ws * q + bs which every entry receives.
  void query_terms(int i) {
    const Layer& layer = layers[i];
    if (i > 0) convolve(layer.query, query_sources(i), w.q[i].shape, 1, plain(layer.query.bias.get(), nullptr, w.q[i]));
    if (layer.has_entries)
      convolve(layer.support, {w.q[i].source()}, w.r[i].shape, 1, plain(layer.support.bias.get(), nullptr, w.r[i]));
  }

  // Writes c = Wt * (b + Wv * mean) + bt, of which b + Wv * mean stands in z, to where `constants` wants the block's.
  void take_constant(int i) {
    const Layer& layer = layers[i];
    convolve(layer.target, {w.z[i].source()}, w.u[i].shape, 1, plain(layer.target.bias.get(), nullptr, w.u[i]));
    read_planar(w.u[i], layer.features, constants[i]);
    constants[i] += (size_t)layer.features * w.u[i].shape.height * w.u[i].shape.width;
  }

  // u' = LeakyReLU(Wt * (Wv * mean + q) + bt); for the first block z is there already.
  void query_out(int i) {
    const Layer& layer = layers[i];
    if (i > 0 && constants) {
      convolve(layer.mean, mean_sources(i), w.z[i].shape, 1, plain(layer.query.bias.get(), nullptr, w.z[i]));
      take_constant(i);
    }
    if (i > 0) convolve(layer.mean, mean_sources(i), w.z[i].shape, 1, plain(nullptr, w.q[i].floats(), w.z[i]));
    Epilogue e = plain(layer.target.bias.get(), nullptr, w.u[i]);
    e.activate = 1;
    if (layer.pools) write_pooled(e, w.u_down[i]);
    convolve(layer.target, {w.z[i].source()}, w.u[i].shape, 1, e);
  }

  // Block i on the entries from..from+count-1, a chunk.
  void entries(int i, const Prepared& support, int from, int count) {
    const Layer& layer = layers[i];
    Epilogue e{};
    e.add = w.r[i].floats(), e.activate = 1, e.slope = slope, e.first = from == 0;
    e.mean = w.mean[i].floats(), e.entry_weights = support.weights.get() + from;
    const bool is_first = i % 2 == 0;
    if (layer.pools) {
      e.pooled_mean = w.mean_down[i].floats(), e.pooled_pitch = w.mean_down[i].shape.pitch;
      if (is_first) write_pooled(e, w.passed[i]);
    } else if (is_first) {
      write_out(e, w.passed[i]);
    }
    if (w.kept[i].stride) write_out(e, w.kept[i], from);
    if (i == 0) {
      const FirstBlock block{first.get(), label_sum.get(), channels(0)};
      const long stride = 2L * w.height * w.width, labels = (long)w.height / 2 * (w.width / 2);
      const Images images{support.entries + from * stride, stride, support.labels.data() + from * labels, labels};
      const int some = std::clamp(terms.count - from, 0, count);
      const FirstTerms known{some ? terms.data + from * w.term_size() : nullptr, some, terms.known};
      pool.each(w.height / 2, [&](int pair, int) { k->first_block_rows(block, images, known, w.r[0].shape, pair, count, e); });
      return;
    }
    std::vector<Source> sources;
    const Map& before = is_first ? w.kept[i - 1] : w.passed[i - 1];
    const int at = is_first ? from : 0;
    if (layer.doubles) {
      upsample(before, at, w.resized[i], count);
      sources = {w.resized[i].source(), w.kept[layer.sources[1]].source(from)};
    } else if (is_first) {
      resize(pool, k->pool_row, before, at, w.resized[i], count);
      sources = {w.resized[i].source()};
    } else {
      sources = {before.source()};
    }
    convolve(layer.mean, sources, w.term[i].shape, count, plain(nullptr, nullptr, w.term[i]));
    convolve(layer.support, {w.term[i].source()}, w.r[i].shape, count, e);
  }

  void mix_first() {
    pool.each(w.height, [&](int y, int) {
      k->small_row(first_mixed.get(), w.mixed_planar.get(), 3, w.z[0].shape, y, layers[0].query.bias.get(), w.z[0].floats());
    });
  }

  void one(const Prepared& support, float* logits) {
    const int n = (int)layers.size();
    // The first block's query sees the mean of the support: one convolution of (query, mean image, mean label).
    const size_t plane = (size_t)(w.height + 2) * (w.width + 2);
    std::copy_n(support.mean.get(), 2 * plane, w.mixed_planar.get() + plane);
    if (constants) {
      std::fill_n(w.mixed_planar.get(), plane, 0.f);
      mix_first();
      take_constant(0);
    }
    std::copy_n(w.query_planar.get(), plane, w.mixed_planar.get());
    mix_first();
    for (int i = 0; i + 1 < n; i += 2) {
      if (i > 0) query_terms(i);
      query_out(i);
      query_terms(i + 1);
      for (int from = 0; from < support.count; from += w.chunk[i]) {
        const int count = std::min(w.chunk[i], support.count - from);
        entries(i, support, from, count);
        entries(i + 1, support, from, count);
      }
      query_out(i + 1);
    }
    query_terms(n - 1);
    query_out(n - 1);
    pool.each(w.height, [&](int y, int) { k->head_row(head.get(), head_bias, w.u[n - 1].floats(), w.u[n - 1].shape, y, logits); });
  }

  void run(const std::vector<const Prepared*>& supports, const float* queries, int count, float* logits, std::vector<float*> wanted,
           std::vector<Loop>* record) {
    std::lock_guard<Turn> lock(turn);
    const Recorded recorded(pool, record);
    constants = wanted.empty() ? nullptr : wanted.data();
    int most = 0, all = 0;
    for (auto* s : supports) most = std::max(most, s->count), all += s->count;
    const int height = supports[0]->height, width = supports[0]->width;
    reserve(most, height, width);
    if (count > 1) w.reserve_terms(all);
    for (int b = 0; b < count; ++b, queries += height * width) {
      for (int y = 0; y < height; ++y) std::copy_n(queries + y * width, width, w.query_planar.get() + (y + 1) * (width + 2) + 1);
      pool.each(height, [&](int y, int) {
        k->small_row(first_query.get(), w.query_planar.get(), 1, w.q[0].shape, y, layers[0].query.bias.get(), w.q[0].floats());
      });
      query_terms(0);
      int before = 0;
      for (auto* support : supports) {
        const int some = count > 1 ? std::clamp(w.terms_kept - before, 0, support->count) : 0;
        terms = {some ? w.terms.get() + before * w.term_size() : nullptr, some, b > 0};
        one(*support, logits);
        before += support->count, logits += (size_t)height * width;
      }
    }
  }
};

namespace {

int deepest(const std::vector<Block>& blocks) {
  int level = 0;
  for (const Block& block : blocks) level = std::max(level, block.level);
  return level;
}

}  // namespace

Network::Network(const std::vector<Block>& blocks, const float* head_weight, float head_bias, float slope,
                 const Kernels* kernels_, int threads)
    : kernels(kernels_), multiple(1 << deepest(blocks)), impl_(new Impl(blocks, head_weight, head_bias, slope, kernels_, threads)) {}

Network::~Network() = default;

std::vector<std::pair<int, int>> Network::outputs() const {
  std::vector<std::pair<int, int>> out;
  for (const Layer& layer : impl_->layers) out.emplace_back(layer.features, layer.level);
  return out;
}

int Network::threads() const { return impl_->pool.started(); }

void Network::run(const std::vector<const Prepared*>& supports, const float* queries, int count, float* logits,
                  const std::vector<float*>& constants, std::vector<Loop>* record) {
  impl_->run(supports, queries, count, logits, constants, record);
}

}  // namespace universeg
