// What the module's functions take from Python, and how it is checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "network.h"
#include "pool.h"

namespace py = pybind11;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

inline Array array(const py::dict& arrays, const std::string& name, std::vector<py::ssize_t> shape) {
  if (!arrays.contains(name.c_str())) throw py::value_error("no array " + name);
  Array out = arrays[name.c_str()].cast<Array>();
  std::vector<py::ssize_t> given(out.shape(), out.shape() + out.ndim());
  if (given != shape) throw py::value_error("array " + name + " has another shape than the network needs");
  return out;
}

// A block's place in the network, from universeg_rt/spec.py: features, query_channels, support_channels, level, sources, halved.
using Place = std::tuple<int, int, int, int, std::vector<int>, bool>;

// The order of work goes by pairs of blocks: each reads the one before it first, halved or doubled, and at most one more, at its size.
inline void check(const std::vector<Place>& places) {
  const int n = (int)places.size();
  if (n < 3 || n % 2 == 0) throw py::value_error("the kernels run an odd number of blocks, at least 3");
  for (int i = 0; i < n; ++i) {
    const auto& [features, query, support, level, sources, halved] = places[i];
    if (features < 1 || features > 512) throw py::value_error("a stage has 1 to 512 features");
    int read = 0;
    for (int source : sources) {
      if (source < 0 || source >= i) throw py::value_error("a block reads blocks before it");
      read += std::get<0>(places[source]);
    }
    const bool fits = i == 0 ? sources.empty() && level == 0 && query == 1 && support == 2
                             : !sources.empty() && sources.size() < 3 && sources[0] == i - 1 && query == read && support == read;
    const int below = i == 0 ? 0 : std::get<3>(places[i - 1]);
    const bool resized = i == 0 || (sources.size() == 1 ? level == below + 1 && std::get<5>(places[i - 1])
                                                        : level == below - 1 && std::get<3>(places[sources.back()]) == level);
    if (!fits || !resized || level > 15) throw py::value_error("the kernels do not run a network of this topology");
  }
  if (std::get<3>(places.back()) != 0) throw py::value_error("the last block works at full resolution");
}

// The loops of a run: of each the threads that it takes in, and its items' seconds.
using Loops = std::vector<std::pair<int, std::vector<double>>>;

inline Loops listed(const std::vector<universeg::Loop>& record) {
  Loops out;
  for (const auto& loop : record) out.emplace_back(loop.threads, loop.seconds);
  return out;
}

// The kernels of this name, or for "auto" the fastest for these blocks.
inline const universeg::Kernels* kernels_for(const std::vector<universeg::Block>& blocks, const std::string& instructions) {
  const auto* kernels = instructions == "auto" ? universeg::fastest_kernels(blocks) : universeg::choose_kernels(instructions);
  if (!kernels) throw py::value_error("no kernels " + instructions + " for this processor");
  return kernels;
}
