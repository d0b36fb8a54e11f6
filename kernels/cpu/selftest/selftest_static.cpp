// Static networks with random weights for the self-test: constants taken from a run, batches of several sizes, no access outside a
// buffer, every instruction set against the plain kernels.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "selftest.h"
#include "static_network.h"

using namespace universeg;

namespace {

std::vector<StaticBlock> static_blocks(Weights& weights, const std::vector<Block>& blocks) {
  std::vector<StaticBlock> out;
  for (const Block& b : blocks) {
    StaticBlock s{weights.conv(b.target.outputs, b.query_channels), b.target, b.level, b.sources, b.halved, nullptr};
    if (b.sources.empty()) s.first = weights.make((size_t)9 * 50 * b.target.outputs, 0.1f);
    out.push_back(s);
  }
  return out;
}

// The constants of a run, and what a static network gives of `count` queries by them.
std::vector<float> logits_of(const std::string& name, const std::vector<Block>& blocks, const std::vector<StaticBlock>& frozen,
                             const float* head, const Network::Prepared& set, const std::vector<float>& queries, int count) {
  const int height = set.height, width = set.width;
  Network exact(blocks, head, 0.1f, 0.01f, choose_kernels(name), 2);
  std::vector<std::vector<float>> maps;
  std::vector<float*> to;
  for (const auto& [features, level] : exact.outputs()) {
    maps.emplace_back((size_t)features * (height >> level) * (width >> level));
    to.push_back(maps.back().data());
  }
  std::vector<float> logits((size_t)count * height * width);
  exact.run({&set}, queries.data(), 1, logits.data(), to);
  StaticNetwork network(frozen, head, 0.1f, 0.01f, choose_kernels(name), 2);
  const auto constants = network.constants({to.begin(), to.end()}, height, width);
  network.run(constants, queries.data(), 1, logits.data());  // the workspace is kept or made anew
  network.run(constants, queries.data(), count, logits.data());
  return logits;
}

}  // namespace

int check_static(const std::vector<Places>& networks, unsigned seed) {
  int bad = 0;
  for (size_t shape = 0; shape < networks.size(); ++shape) {
    Weights weights(seed + (unsigned)shape);
    auto draw = [&](int low, int high) { return low + (int)(weights.random() % (unsigned)(high - low + 1)); };
    const std::vector<Block> blocks = make_blocks(weights, networks[shape], false);
    const std::vector<StaticBlock> frozen = static_blocks(weights, blocks);
    const float* head = weights.make(networks[shape].back().features, 0.2f);
    const int multiple = Network(blocks, head, 0.1f, 0.01f, choose_kernels("plain"), 1).size_multiple();
    const int height = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const int width = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const int count = draw(1, 9), entries = draw(1, 4);
    std::vector<float> queries((size_t)count * height * width), support(2 * (size_t)entries * height * width);
    for (float& x : queries) x = (float)draw(0, 999) / 1000.f;
    for (float& x : support) x = (float)draw(0, 1);
    const std::vector<float> rows(entries, 1.f / (float)entries);
    const Network::Prepared set = Network::prepare(support.data(), rows.data(), entries, height, width);
    std::vector<float> expected;
    for (const std::string& name : available_kernels()) {
      const std::vector<float> logits = logits_of(name, blocks, frozen, head, set, queries, count);
      if (expected.empty()) expected = logits_of("plain", blocks, frozen, head, set, queries, count);
      double worst = 0, largest = 0;
      for (size_t i = 0; i < logits.size(); ++i) {
        worst = std::max(worst, (double)std::fabs(logits[i] - expected[i]));
        largest = std::max(largest, (double)std::fabs(expected[i]));
      }
      if (!(worst <= 1e-3 * largest))
        ++bad, std::printf("%s, static network %zu, %dx%d, %d queries: off by %g of %g\n", name.c_str(), shape, height, width, count,
                           worst, largest);
    }
  }
  return bad;
}
