// Training's kernels for the self-test: every instruction set against plain ones, one thread against several.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>

#include "memory.h"
#include "network.h"
#include "training.h"

using namespace universeg;

namespace {

std::mt19937 engine{11};

Floats random_floats(size_t count) {
  std::normal_distribution<float> normal;
  Floats out(count);
  for (size_t i = 0; i < count; ++i) out.get()[i] = normal(engine);
  return out;
}

// Weights [36][inputs][outputs] as kernels of this block want them.
Floats packed(const Floats& weights, int inputs, int outputs, int block) {
  Floats out(36 * (size_t)inputs * outputs);
  for (int p = 0; p < 36; ++p)
    for (int k = 0; k < inputs; ++k)
      for (int o = 0; o < outputs; ++o)
        out.get()[((size_t)(p * (outputs / block) + o / block) * inputs + k) * block + o % block] =
            weights.get()[((size_t)p * inputs + k) * outputs + o];
  return out;
}

struct Results {
  Floats out, sums, pooled, mean, add, first;
};

}  // namespace

int check_training() {
  constexpr int N = 3, H = 10, W = 22, I = 64, O = 32;
  const Floats x = random_floats(N * H * W * I), dy = random_floats(N * H * W * O), weights = random_floats(36 * I * O);
  const Floats bias = random_floats(O), images = random_floats(N * 2 * H * W), first = random_floats(9 * 50 * O);
  const Floats add = random_floats(H * W * O), d_pooled = random_floats(N * H / 2 * W / 2 * O), d_mean = random_floats(H * W * O);
  const float row[N] = {0.5f, 0.2f, 0.3f};
  const size_t sizes[] = {N * H * W * O, 36 * I * O, N * H / 2 * W / 2 * O, H * W * O, H * W * O, 9 * 50 * O};
  auto run = [&](const Kernels& k, int threads) {
    Pool pool(threads);
    Results r{Floats(sizes[0]), Floats(sizes[1]), Floats(sizes[2]), Floats(sizes[3]), Floats(sizes[4]), Floats(sizes[5])};
    const Maps maps{x.get(), N, H, W, I}, gradient{dy.get(), N, H, W, O};
    convolve(k, pool, maps, packed(weights, I, O, k.block).get(), O, bias.get(), r.out.get());
    convolve_gradient(k, pool, maps, gradient, r.sums.get());
    const FirstMaps block{first.get(), images.get(), add.get(), row, N, H, W, O, 0.01f};
    first_forward(k, pool, block, r.pooled.get(), r.mean.get());
    first_backward(k, pool, block, d_pooled.get(), d_mean.get(), r.add.get(), r.first.get());
    return r;
  };
  const Results plain = run(*choose_kernels("plain"), 1);
  int bad = 0;
  for (const std::string& name : available_kernels()) {
    for (int threads : {1, 3}) {
      const Results r = run(*choose_kernels(name), threads);
      const Floats *ours[] = {&r.out, &r.sums, &r.pooled, &r.mean, &r.add, &r.first};
      const Floats *theirs[] = {&plain.out, &plain.sums, &plain.pooled, &plain.mean, &plain.add, &plain.first};
      for (int what = 0; what < 6; ++what) {
        double off = 0, size = 0;  // a maximum may fall the other way by rounding, so the mean is compared
        for (size_t i = 0; i < sizes[what]; ++i) {
          off += std::fabs(ours[what]->get()[i] - theirs[what]->get()[i]);
          size += std::fabs(theirs[what]->get()[i]);
        }
        if (!(off <= 1e-4 * size)) ++bad, std::printf("training, %s, %d threads: result %d is off by %g\n", name.c_str(), threads, what, off / size);
      }
    }
  }
  return bad;
}
