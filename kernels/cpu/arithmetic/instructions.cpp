// Which kernels run on this processor, and which are the fastest for a network.
#include <cmath>

#include "network.h"

namespace universeg {

namespace {

bool runs_here([[maybe_unused]] const Kernels* kernels) {
#if defined(__x86_64__) && !defined(UNIVERSEG_ALL_KERNELS)  // a test compiles them all for the processor at hand
  const std::string name = kernels->name;
  if (name == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (name == "avx512") return __builtin_cpu_supports("avx512f");
#endif
  return true;
}

const std::vector<const Kernels*>& all_kernels() {
#if defined(__x86_64__)
  static const std::vector<const Kernels*> all = {avx512_kernels(), avx2_kernels(), plain_kernels()};
#else
  static const std::vector<const Kernels*> all = {plain_kernels()};
#endif
  return all;
}

// Multiplications in a second at full vectors, of AVX2's: measured with 64 features, S = 16, on one core of a Sapphire Rapids.
double rate(const std::string& name) { return name == "avx512" ? 1.6 : name == "avx2" ? 1.0 : 0.43; }

// Multiplications that an entry takes at each pixel of the image, padding included; the query's are few beside.
double padded_cost(const std::vector<Block>& blocks, int block) {
  const double winograd = 36. / 16;  // of a 4x4 tile
  double cost = 0;
  for (size_t i = 0; i + 1 < blocks.size(); ++i) {  // the last block reads the entries' mean
    const double outputs = rounded(blocks[i].cross.outputs, block);
    double inputs = 0;
    for (int source : blocks[i].sources) inputs += rounded(blocks[source].cross.outputs, block);
    const double each = i == 0 ? 50 * outputs : winograd * (inputs + outputs) * outputs;
    cost += std::ldexp(each, -2 * blocks[i].level);
  }
  return cost;
}

}  // namespace

const Kernels* fastest_kernels(const std::vector<Block>& blocks) {
  const Kernels* fastest = nullptr;
  double least = 0;
  for (const Kernels* kernels : all_kernels()) {
    if (!runs_here(kernels)) continue;
    const double seconds = padded_cost(blocks, kernels->block) / rate(kernels->name);
    if (!fastest || seconds < least) fastest = kernels, least = seconds;
  }
  return fastest;
}

const Kernels* choose_kernels(const std::string& name) {
  for (const Kernels* kernels : all_kernels())
    if (runs_here(kernels) && (name == "auto" || name == kernels->name)) return kernels;
  return nullptr;
}

std::vector<std::string> available_kernels() {
  std::vector<std::string> out;
  for (const Kernels* kernels : all_kernels())
    if (runs_here(kernels)) out.push_back(kernels->name);
  return out;
}

}  // namespace universeg
