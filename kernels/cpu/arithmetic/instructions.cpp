// Which kernels run on this processor.
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

}  // namespace

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
