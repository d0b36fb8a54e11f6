// Order of work: block by block, a few queries together, so that they share a layer's weights.
#include "static_network.h"

#include <algorithm>
#include <mutex>
#include <new>

#include "loops.h"

namespace universeg {

namespace {

constexpr int QUERIES = 4;  // that go through together: some share the weights, more would leave the cache

struct StaticLayer {
  Packed query, target;
  int level, features;
  std::vector<int> sources;
  bool pools;
};

// The maps that `count` queries work on.
struct Maps {
  int height = 0, width = 0, count = 0;
  std::vector<Map> q, u, u_down, up;
  Floats images;  // planar (count, 2, height, width), the second plane zero
  std::vector<unsigned char> labels;
  std::vector<Floats> scratch;
};

}  // namespace

struct StaticNetwork::Impl {
  std::vector<StaticLayer> layers;
  Floats first, no_label, head;
  float head_bias, slope;
  const Kernels* k;
  Pool pool;
  Maps w;
  Turn turn{[this] { new (&w) Maps; }};  // of callers, one at a time

  Impl(const std::vector<StaticBlock>& blocks, const float* head_weight, float head_bias_, float slope_, const Kernels* kernels,
       int threads)
      : head_bias(head_bias_), slope(slope_), k(kernels), pool(threads) {
    for (const StaticBlock& b : blocks) {
      StaticLayer layer;
      layer.level = b.level, layer.features = b.target.outputs, layer.sources = b.sources, layer.pools = b.halved;
      if (!b.sources.empty()) {
        std::vector<int> groups;
        for (int source : b.sources) groups.push_back(layers[source].features);
        layer.query = pack(b.query, 0, groups, k->block);
        layer.target = pack(b.target, 0, {layer.features}, k->block);
      }
      layers.push_back(std::move(layer));
    }
    first = pack_first(blocks[0].first, blocks[0].target.outputs, k->block);
    no_label = Floats(channels(0));
    head = Floats(channels((int)layers.size() - 1));
    std::copy_n(head_weight, layers.back().features, head.get());
  }

  int channels(int i) const { return rounded(layers[i].features, k->block); }

  void reserve(int height, int width, int count) {
    if (height == w.height && width == w.width && count <= w.count) return;
    w = Maps();  // the old one's memory is free before the new one's is taken
    const int n = (int)layers.size();
    Maps m;
    m.height = height, m.width = width, m.count = count;
    for (auto* maps : {&m.q, &m.u, &m.u_down, &m.up}) maps->resize(n);
    long most_scratch = 0;
    for (int i = 0; i < n; ++i) {
      const StaticLayer& layer = layers[i];
      const int high = height >> layer.level, wide = width >> layer.level, c = channels(i);
      const int skip = layer.sources.size() == 2 ? layer.sources[1] : i;
      if (i > 0) m.q[i] = skip < i && skip > 0 && channels(skip) == c ? m.q[skip] : Map(high, wide, c, count);
      m.u[i] = Map(high, wide, c, count);
      if (layer.pools) m.u_down[i] = Map(high / 2, wide / 2, c, count);
      if (layer.sources.size() == 2) m.up[i] = channels(i - 1) == c ? m.u[i] : Map(high, wide, channels(i - 1), count);
      if (i > 0) most_scratch = std::max(most_scratch, k->scratch_floats(std::max(layer.query.conv.inputs, c), c));
    }
    m.images = Floats(2 * (size_t)count * height * width);
    m.labels.resize((size_t)height / 2 * (width / 2));
    for (int i = 0; i < pool.threads(); ++i) m.scratch.emplace_back(most_scratch);
    w = std::move(m);
  }

  Epilogue result(int i, const Constants& constants) const {
    Epilogue e{};
    e.add = constants[i].floats(), e.activate = 1, e.slope = slope, e.out = w.u[i].at(0), e.out_stride = w.u[i].stride;
    if (layers[i].pools)
      e.pooled = w.u_down[i].at(0), e.pooled_stride = w.u_down[i].stride, e.pooled_pitch = w.u_down[i].shape.pitch;
    return e;
  }

  // The kernel of the exact network's first block sums over entries; here each query is a set of one entry of weight 1.
  void first_block(const Constants& constants, int count) {
    const FirstBlock block{first.get(), no_label.get(), channels(0)};
    const float one = 1.f;
    const long plane = (long)w.height * w.width;
    const int pairs = w.height / 2;
    pool.each(pairs * count, [&](int item, int) {
      const int i = item / pairs;
      Epilogue e = result(0, constants);
      e.first = 1, e.entry_weights = &one, e.mean = static_cast<float*>(w.u[0].at(i));
      e.pooled = e.pooled_mean = static_cast<float*>(w.u_down[0].at(i));
      const Images image{w.images.get() + 2 * i * plane, 0, w.labels.data(), 0};
      k->first_block_rows(block, image, {}, w.u[0].shape, item % pairs, 1, e);
    });
  }

  std::vector<Source> inputs(int i, int count) {
    const StaticLayer& layer = layers[i];
    if (layer.sources.size() == 1) return {w.u_down[i - 1].source()};
    resize(pool, k->upsample_row, w.u[i - 1], 0, w.up[i], count);
    return {w.up[i].source(), w.u[layer.sources[1]].source()};
  }

  void some(const Constants& constants, const float* queries, int count, float* logits) {
    const size_t plane = (size_t)w.height * w.width;
    for (int i = 0; i < count; ++i) std::copy_n(queries + i * plane, plane, w.images.get() + 2 * i * plane);
    first_block(constants, count);
    for (int i = 1; i < (int)layers.size(); ++i) {
      Epilogue between{};
      between.out = w.q[i].at(0), between.out_stride = w.q[i].stride;
      convolve(pool, *k, layers[i].query, inputs(i, count), w.q[i].shape, count, between, w.scratch);
      convolve(pool, *k, layers[i].target, {w.q[i].source()}, w.u[i].shape, count, result(i, constants), w.scratch);
    }
    const Map& last = w.u.back();
    pool.each(w.height * count, [&](int item, int) {
      const int i = item / w.height;
      k->head_row(head.get(), head_bias, static_cast<float*>(last.at(i)), last.shape, item % w.height, logits + i * plane);
    });
  }

  void run(const Constants& constants, const float* queries, int count, float* logits, std::vector<Loop>* record) {
    std::lock_guard<Turn> lock(turn);
    const Recorded recorded(pool, record);
    const int height = constants[0].shape.height, width = constants[0].shape.width;
    const size_t plane = (size_t)height * width;
    reserve(height, width, std::min(count, QUERIES));
    for (int from = 0; from < count; from += QUERIES)
      some(constants, queries + from * plane, std::min(QUERIES, count - from), logits + from * plane);
  }
};

StaticNetwork::StaticNetwork(const std::vector<StaticBlock>& blocks, const float* head_weight, float head_bias, float slope,
                             const Kernels* kernels_, int threads)
    : kernels(kernels_), impl_(new Impl(blocks, head_weight, head_bias, slope, kernels_, threads)) {}

StaticNetwork::~StaticNetwork() = default;

std::vector<std::pair<int, int>> StaticNetwork::outputs() const {
  std::vector<std::pair<int, int>> out;
  for (const StaticLayer& layer : impl_->layers) out.emplace_back(layer.features, layer.level);
  return out;
}

int StaticNetwork::threads() const { return impl_->pool.started(); }

StaticNetwork::Constants StaticNetwork::constants(const std::vector<const float*>& maps, int height, int width) const {
  Constants out;
  for (size_t i = 0; i < maps.size(); ++i) {
    const StaticLayer& layer = impl_->layers[i];
    Map map(height >> layer.level, width >> layer.level, impl_->channels((int)i));
    write_planar(maps[i], layer.features, map);
    out.push_back(std::move(map));
  }
  return out;
}

void StaticNetwork::run(const Constants& constants, const float* queries, int count, float* logits, std::vector<Loop>* record) {
  impl_->run(constants, queries, count, logits, record);
}

}  // namespace universeg
