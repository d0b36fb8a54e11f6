// The Python module universeg_rt._native: arrays in, arrays out; the interpreter's lock is let go while it works.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>

#include "network.h"

namespace py = pybind11;
using universeg::Block;
using universeg::Conv;
using universeg::Network;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;

namespace {

Array array(const py::dict& arrays, const std::string& name, std::vector<py::ssize_t> shape) {
  if (!arrays.contains(name.c_str())) throw py::value_error("no array " + name);
  Array out = arrays[name.c_str()].cast<Array>();
  std::vector<py::ssize_t> given(out.shape(), out.shape() + out.ndim());
  if (given != shape) throw py::value_error("array " + name + " has another shape than the network needs");
  return out;
}

// A block's place in the network, from universeg_rt/spec.py: features, query_channels, support_channels, level, sources, halved.
using Place = std::tuple<int, int, int, int, std::vector<int>, bool>;

// The order of work goes by pairs of blocks: each reads the one before it first, halved or doubled, and at most one more, at its size.
void check(const std::vector<Place>& places) {
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

// arrays: for block i `i.cross`, `i.target`, `i.support` with `.weight` (out,in,3,3) and `.bias` (out,), `first` (9,2,5,5,out) and
// `head.weight` (in,), `head.bias` (1,). `int8` (blocks - 1, 2), which may be left out: which maps are held in int8, a block's
// (out_bytes, term_bytes) not zero.
std::unique_ptr<Network> make(const py::dict& arrays, const std::vector<Place>& places, float slope, const std::string& instructions,
                              int threads) {
  check(places);
  if (threads < 1) throw py::value_error("threads must be positive");
  const int n = (int)places.size();
  std::vector<Array> keep;
  std::vector<Block> blocks;
  const Array bytes = arrays.contains("int8") ? array(arrays, "int8", {n - 1, 2}) : Array();
  auto conv = [&](const std::string& name, int outputs, int inputs) {
    keep.push_back(array(arrays, name + ".weight", {outputs, inputs, 3, 3}));
    const float* weight = keep.back().data();
    keep.push_back(array(arrays, name + ".bias", {outputs}));
    return Conv{weight, keep.back().data(), outputs, inputs};
  };
  for (int i = 0; i < n; ++i) {
    const std::string name = std::to_string(i);
    const auto& [features, query, support, level, sources, halved] = places[i];
    Block block{};
    block.query_channels = query, block.level = level, block.sources = sources, block.halved = halved;
    block.cross = conv(name + ".cross", features, query + support);
    block.target = conv(name + ".target", features, features);
    if (i < n - 1) {
      block.support = conv(name + ".support", features, features);
      if (bytes.ndim() == 2) block.out_bytes = bytes.at(i, 0) != 0, block.term_bytes = bytes.at(i, 1) != 0;
    }
    if (i == 0) {
      keep.push_back(array(arrays, "first", {9, 2, 5, 5, features}));
      block.first = keep.back().data();
    }
    blocks.push_back(block);
  }
  keep.push_back(array(arrays, "head.weight", {std::get<0>(places.back())}));
  const float* head = keep.back().data();
  keep.push_back(array(arrays, "head.bias", {1}));
  const auto* kernels = instructions == "auto" ? universeg::fastest_kernels(blocks) : universeg::choose_kernels(instructions);
  if (!kernels) throw py::value_error("no kernels " + instructions + " for this processor");
  return std::make_unique<Network>(blocks, head, keep.back().data()[0], slope, kernels, threads);
}

// A prepared support and the array that it reads.
struct Prepared {
  Array entries;
  Network::Prepared set;
};

std::unique_ptr<Prepared> prepare(const Array& entries, const Array& weights) {
  if (entries.ndim() != 4 || entries.shape(1) != 2 || entries.shape(0) < 1) throw py::value_error("entries are (S,2,H,W)");
  if (weights.ndim() != 1 || weights.shape(0) != entries.shape(0)) throw py::value_error("weights are (S,)");
  const int height = (int)entries.shape(2), width = (int)entries.shape(3);
  if (height < 8 || width < 8 || height % 2 || width % 2) throw py::value_error("height and width are even and at least 8");
  const float *data = entries.data(), *row = weights.data();
  const int count = (int)entries.shape(0);
  Network::Prepared set;
  {
    py::gil_scoped_release release;
    set = Network::prepare(data, row, count, height, width);
  }
  return std::make_unique<Prepared>(Prepared{entries, std::move(set)});
}

py::array_t<float> run(Network& network, const std::vector<const Prepared*>& supports, const Array& query) {
  if (supports.empty()) throw py::value_error("no support");
  std::vector<const Network::Prepared*> sets;
  for (const Prepared* s : supports) {
    if (!s || query.ndim() != 2 || query.shape(0) != s->set.height || query.shape(1) != s->set.width)
      throw py::value_error("the query and every support have one size");
    sets.push_back(&s->set);
  }
  const int multiple = network.size_multiple();
  if (query.shape(0) % multiple || query.shape(1) % multiple) throw py::value_error("the sizes do not fit the network");
  py::array_t<float> out(std::vector<py::ssize_t>{(py::ssize_t)sets.size(), query.shape(0), query.shape(1)});
  float* logits = out.mutable_data();
  {
    py::gil_scoped_release release;
    network.run(sets, query.data(), logits);
  }
  return out;
}

}  // namespace

void add_training(py::module_& m);  // training_module.cpp

PYBIND11_MODULE(_native, m) {
  m.doc() = "The folded network on the CPU in native code; use it through universeg_rt.runners.cpu.native.";
  m.def("available", &universeg::available_kernels, "Names of the kernels that run on this processor, the longest vectors first.");
  m.def("prepare", &prepare, py::arg("entries"), py::arg("weights"));
  py::class_<Prepared>(m, "Prepared");
  py::class_<Network>(m, "Network")
      .def(py::init(&make), py::arg("arrays"), py::arg("places"), py::arg("slope"), py::arg("instructions"), py::arg("threads"))
      .def("run", &run, py::arg("supports"), py::arg("query"))
      .def_property_readonly("threads", &Network::threads)
      .def_property_readonly("instructions", [](const Network& n) { return std::string(n.kernels->name); });
  add_training(m);
}
