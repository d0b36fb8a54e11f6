// Networks of random depth, widths, images and supports for the self-test: no access outside a buffer, every instruction set
// against the plain kernels. Narrow and wide blocks meet in a pair, and a small chunk makes the entries go in several.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "selftest.h"

namespace universeg {

std::vector<Block> make_blocks(Weights& weights, const std::vector<int>& encoder, const std::vector<int>& decoder, bool bytes) {
  const int encoders = (int)encoder.size(), count = 2 * encoders - 1;
  std::vector<Block> blocks;
  for (int i = 0; i < count; ++i) {
    const bool is_encoder = i < encoders;
    const int features = is_encoder ? encoder[i] : decoder[i - encoders];
    int query = i == 0 ? 1 : i <= encoders ? encoder[i - 1] : decoder[i - encoders - 1];
    int support = i == 0 ? 2 : query;
    if (!is_encoder) query += encoder[2 * encoders - 2 - i], support = query;
    const int level = is_encoder ? i : 2 * encoders - 2 - i;
    std::vector<int> sources;
    if (i > 0) sources.push_back(i - 1);
    if (!is_encoder) sources.push_back(level);
    Block block{weights.conv(features, query + support), weights.conv(features, features), {}, query, level, sources,
                i < encoders - 1, nullptr, bytes, bytes};
    if (i < count - 1) block.support = weights.conv(features, features);
    if (i == 0) block.first = weights.make((size_t)9 * 50 * features, bytes ? 8.f : 0.1f);
    blocks.push_back(block);
  }
  return blocks;
}

}  // namespace universeg

using namespace universeg;

int check_shapes(int count, unsigned seed) {
  int bad = 0;
  for (int shape = 0; shape < count; ++shape) {
    Weights weights(seed + shape);
    auto draw = [&](int low, int high) { return low + (int)(weights.random() % (unsigned)(high - low + 1)); };
    auto features = [&] {
      const int some[] = {1, 3, 8, 16, 17, 24, 32, 48, 64, 100};
      return some[draw(0, 9)];
    };
    const int encoders = draw(2, 5), multiple = 1 << (encoders - 1);
    std::vector<int> encoder(encoders), decoder(encoders - 1);
    for (int& f : encoder) f = features();
    for (int& f : decoder) f = features();
    const bool bytes = draw(0, 2) == 0;
    std::vector<Block> blocks = make_blocks(weights, encoder, decoder, bytes);
    if (bytes)
      for (Block& block : blocks) block.out_bytes = draw(0, 3) > 0, block.term_bytes = draw(0, 3) > 0;
    const float* head = weights.make(decoder.back(), 0.2f);
    const int height = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const int width = multiple * draw((8 + multiple - 1) / multiple, std::max(2, 48 / multiple));
    const size_t size = (size_t)height * width;
    Network net(blocks, head, 0.1f, 0.01f, choose_kernels("plain"), 2);
    std::string what;
    for (int f : encoder) what += std::to_string(f) + " ";
    what += "|";
    for (int f : decoder) what += " " + std::to_string(f);
    what += ", " + std::to_string(height) + "x" + std::to_string(width) + (bytes ? ", int8" : "");
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
          net.run({&set}, query.data(), expected[k].data());
        }
        other.run({&set}, query.data(), logits.data());
        double off = 0, largest = 0, worst = 0;
        for (size_t i = 0; i < size; ++i) {
          const double error = std::fabs(logits[i] - expected[k][i]);
          off += error / (double)size, worst = std::max(worst, error);
          largest = std::max(largest, (double)std::fabs(expected[k][i]));
        }
        if (!((bytes ? off : worst) <= (bytes ? 1e-2 : 1e-3) * largest))
          ++bad, std::printf("%s, shape %d: %s, %d entries: off by %g, %g on average, of %g\n", name.c_str(), shape, what.c_str(),
                             counts[k], worst, off, largest);
      }
    }
  }
  return bad;
}
