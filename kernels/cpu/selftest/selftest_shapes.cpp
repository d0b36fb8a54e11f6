// Networks of a file with random weights, images and supports for the self-test: no access outside a buffer, every instruction set
// against the plain kernels. A small chunk makes the entries go in several.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>

#include "selftest.h"

namespace universeg {

std::vector<Places> read_networks(const char* path) {
  std::ifstream file(path);
  std::vector<Places> networks;
  for (size_t blocks; file >> blocks;) {
    Places places(blocks);
    for (Place& p : places) {
      size_t sources = 0;
      file >> p.features >> p.query_channels >> p.support_channels >> p.level >> p.halved >> sources;
      if (!file || sources > blocks) return {};
      p.sources.resize(sources);
      for (int& source : p.sources) file >> source;
    }
    if (!file) return {};
    networks.push_back(places);
  }
  return file.eof() ? networks : std::vector<Places>();
}

std::vector<Block> make_blocks(Weights& weights, const Places& places, bool bytes) {
  std::vector<Block> blocks;
  for (const Place& p : places) {
    Block block{weights.conv(p.features, p.query_channels + p.support_channels), weights.conv(p.features, p.features), {},
                p.query_channels, p.level, p.sources, p.halved, nullptr, bytes, bytes};
    if (&p != &places.back()) block.support = weights.conv(p.features, p.features);
    if (p.sources.empty()) block.first = weights.make((size_t)9 * 25 * p.support_channels * p.features, bytes ? 8.f : 0.1f);
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace universeg

using namespace universeg;

int check_shapes(const std::vector<Places>& networks, unsigned seed) {
  int bad = 0;
  for (size_t shape = 0; shape < networks.size(); ++shape) {
    const Places& places = networks[shape];
    Weights weights(seed + (unsigned)shape);
    auto draw = [&](int low, int high) { return low + (int)(weights.random() % (unsigned)(high - low + 1)); };
    const bool bytes = draw(0, 2) == 0;
    std::vector<Block> blocks = make_blocks(weights, places, bytes);
    if (bytes)
      for (Block& block : blocks) block.out_bytes = draw(0, 3) > 0, block.term_bytes = draw(0, 3) > 0;
    const float* head = weights.make(places.back().features, 0.2f);
    Network net(blocks, head, 0.1f, 0.01f, choose_kernels("plain"), 2);
    const int multiple = net.size_multiple();
    const int height = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const int width = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const size_t size = (size_t)height * width;
    std::string what;
    for (const Place& p : places) what += std::to_string(p.features) + " ";
    what += "features, " + std::to_string(height) + "x" + std::to_string(width) + (bytes ? ", int8" : "");
    std::vector<std::vector<float>> expected;
    std::vector<int> counts = {draw(1, 12), draw(1, 12)};  // the workspace is kept or made anew
    std::vector<std::vector<float>> entries, rows;
    std::vector<float> query(size);
    for (float& x : query) x = (float)draw(0, 999) / 1000.f;
    for (int entry_count : counts) {
      entries.emplace_back(2 * size * entry_count);
      for (float& x : entries.back()) x = (float)draw(0, 999) / 1000.f;
      for (int i = 0; i < entry_count; ++i)
        for (size_t j = 0; j < size; ++j) entries.back()[(2 * i + 1) * size + j] = (int)(j % width) < width * i / 5;
      rows.emplace_back(entry_count, 1.f / (float)entry_count);
    }
    for (const std::string& name : available_kernels()) {
      Network other(blocks, head, 0.1f, 0.01f, choose_kernels(name), 2);
      for (size_t k = 0; k < counts.size(); ++k) {
        const Network::Prepared set = Network::prepare(entries[k].data(), rows[k].data(), counts[k], height, width);
        std::vector<float> logits(size);
        if (expected.size() <= k) {
          expected.emplace_back(size);
          net.run({&set}, query.data(), 1, expected[k].data());
        }
        other.run({&set}, query.data(), 1, logits.data());
        double off = 0, largest = 0, worst = 0;
        for (size_t i = 0; i < size; ++i) {
          const double error = std::fabs(logits[i] - expected[k][i]);
          off += error / (double)size, worst = std::max(worst, error);
          largest = std::max(largest, (double)std::fabs(expected[k][i]));
        }
        if (!((bytes ? off : worst) <= (bytes ? 1e-2 : 1e-3) * largest))
          ++bad, std::printf("%s, network %zu: %s, %d entries: off by %g, %g on average, of %g\n", name.c_str(), shape, what.c_str(),
                             counts[k], worst, off, largest);
      }
    }
  }
  return bad;
}
