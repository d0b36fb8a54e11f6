// Runs a small random network, with maps in float32 and in int8, on several threads and from several callers at once; for the
// sanitizers. Prints OK and exits 0 where every result is that of one thread to the bit, and that of the plain kernels within 1e-4; in
// int8, where another last bit can be another step, on average. Arguments: a file of networks (selftest.h), of which the first is that
// network and the others are run with random images, and a seed for all that is random.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include "network.h"
#include "selftest.h"

using namespace universeg;

int main(int arguments, char** values) {
  const std::vector<Places> networks = arguments > 1 ? read_networks(values[1]) : std::vector<Places>();
  if (networks.empty()) return std::printf("give a file of networks, and a seed\n"), 2;
  const unsigned seed = arguments > 2 ? std::atoi(values[2]) : 1;
  Weights weights(7);
  const float* head = weights.make(networks[0].back().features, 0.2f);
  int bad = 0;
  for (const std::string& name : available_kernels()) {
    const Kernels* kernels = choose_kernels(name);
    for (const int way : {0, 1, 2, 3}) {
      const bool bytes = way & 1;
      const int height = way & 2 ? 44 : 16;
      const std::vector<Block> blocks = make_blocks(weights, networks[0], bytes);
      const int width = 28, count = 5;
      std::vector<float> entries(2 * count * height * width), query(height * width), row(count, 1.f / count);
      for (float& x : entries) x = (float)(weights.random() % 1000) / 1000.f;
      for (int i = 0; i < count; ++i)
        for (int j = 0; j < height * width; ++j) entries[(2 * i + 1) * height * width + j] = j % width > 3 * i && j % width < 20;
      for (float& x : query) x = (float)(weights.random() % 1000) / 1000.f;
      const Network::Prepared set = Network::prepare(entries.data(), row.data(), count, height, width);
      const std::vector<const Network::Prepared*> sets = {&set, &set};
      std::vector<float> expected(2 * height * width);
      Network one(blocks, head, 0.1f, 0.01f, kernels, 1), many(blocks, head, 0.1f, 0.01f, kernels, 4);
      one.run(sets, query.data(), 1, expected.data());
      std::vector<float> plain(expected.size());
      Network(blocks, head, 0.1f, 0.01f, choose_kernels("plain"), 1).run(sets, query.data(), 1, plain.data());
      float error = 0.f, mean = 0.f, largest = 0.f;
      for (size_t i = 0; i < plain.size(); ++i) {
        const float off = std::fabs(plain[i] - expected[i]);
        error = std::max(error, off), mean += off / plain.size();
        largest = std::max(largest, std::fabs(plain[i]));
      }
      if (!((bytes ? mean : error) <= 1e-4f * largest))
        ++bad, std::printf("%s, height %d, int8 %d: off by %g, %g on average, of %g\n", name.c_str(), height, bytes, error, mean, largest);
      std::vector<std::thread> callers;
      std::vector<int> same(3, 1);
      for (int caller = 0; caller < 3; ++caller)
        callers.emplace_back([&, caller] {
          // Alone, and in a batch after another query, which leaves what they share.
          std::vector<float> logits(expected.size()), both(2 * expected.size()), batch(2 * query.size(), 0.5f);
          std::copy(query.begin(), query.end(), batch.begin() + query.size());
          const size_t bytes_of = logits.size() * sizeof(float);
          for (int repeat = 0; repeat < 3; ++repeat) {
            many.run(sets, query.data(), 1, logits.data());
            many.run(sets, batch.data(), 2, both.data());
            if (std::memcmp(logits.data(), expected.data(), bytes_of) || std::memcmp(&both[expected.size()], expected.data(), bytes_of))
              same[caller] = 0;
          }
        });
      for (auto& caller : callers) caller.join();
      for (int ok : same)
        if (!ok) ++bad, std::printf("%s, height %d, int8 %d: threads or a batch change the result\n", name.c_str(), height, bytes);
    }
  }
  bad += check_shapes({networks.begin() + 1, networks.end()}, seed);
  bad += check_static(networks, seed);
  bad += check_training();
  for (const std::string& name : available_kernels()) std::printf("%s ", name.c_str());
  std::printf(bad ? "failed\n" : "OK\n");
  return bad != 0;
}
