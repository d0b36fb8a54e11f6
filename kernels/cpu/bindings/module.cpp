// The Python module universeg_rt._native: arrays in, arrays out; the interpreter's lock is let go while it works.
#include "arguments.h"

using universeg::Block;
using universeg::Conv;
using universeg::Network;

namespace {

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
  const auto* kernels = kernels_for(blocks, instructions);
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

// Checks what a run is given; the sets of the supports. queries: (B,H,W).
std::vector<const Network::Prepared*> checked(const Network& network, const std::vector<const Prepared*>& supports, const Array& queries) {
  if (supports.empty()) throw py::value_error("no support");
  std::vector<const Network::Prepared*> sets;
  for (const Prepared* s : supports) {
    if (!s || queries.ndim() != 3 || queries.shape(1) != s->set.height || queries.shape(2) != s->set.width)
      throw py::value_error("queries (B,H,W) and every support have one size");
    sets.push_back(&s->set);
  }
  const int multiple = network.size_multiple();
  if (queries.shape(1) % multiple || queries.shape(2) % multiple) throw py::value_error("the sizes do not fit the network");
  return sets;
}

py::array_t<float> run(Network& network, const std::vector<const Prepared*>& supports, const Array& queries,
                       std::vector<universeg::Loop>* record = nullptr) {
  const auto sets = checked(network, supports, queries);
  py::array_t<float> out(std::vector<py::ssize_t>{queries.shape(0), (py::ssize_t)sets.size(), queries.shape(1), queries.shape(2)});
  float* logits = out.mutable_data();
  {
    py::gil_scoped_release release;
    network.run(sets, queries.data(), (int)queries.shape(0), logits, {}, record);
  }
  return out;
}

// Of a run's loops: the threads that each takes in, and its items' seconds.
Loops loops(Network& network, const std::vector<const Prepared*>& supports, const Array& queries) {
  std::vector<universeg::Loop> record;
  run(network, supports, queries, &record);
  return listed(record);
}

// Logits (B,K,H,W), and for each block its constant map (B, K, features, height >> level, width >> level).
std::pair<py::array_t<float>, std::vector<py::array_t<float>>> run_with_constants(Network& network,
                                                                                  const std::vector<const Prepared*>& supports,
                                                                                  const Array& queries) {
  const auto sets = checked(network, supports, queries);
  const py::ssize_t batch = queries.shape(0), count = (py::ssize_t)sets.size(), height = queries.shape(1), width = queries.shape(2);
  py::array_t<float> out(std::vector<py::ssize_t>{batch, count, height, width});
  std::vector<py::array_t<float>> constants;
  std::vector<float*> to;
  for (const auto& [features, level] : network.outputs()) {
    constants.emplace_back(std::vector<py::ssize_t>{batch, count, features, height >> level, width >> level});
    to.push_back(constants.back().mutable_data());
  }
  float* logits = out.mutable_data();
  {
    py::gil_scoped_release release;
    network.run(sets, queries.data(), (int)batch, logits, to);
  }
  return {out, constants};
}

}  // namespace

void add_static(py::module_& m);    // static_module.cpp
void add_training(py::module_& m);  // training_module.cpp

PYBIND11_MODULE(_native, m) {
  m.doc() = "The folded network on the CPU in native code; use it through universeg_rt.runners.cpu.native.";
  m.def("available", &universeg::available_kernels, "Names of the kernels that run on this processor, the longest vectors first.");
  m.def("prepare", &prepare, py::arg("entries"), py::arg("weights"));
  py::class_<Prepared>(m, "Prepared");
  py::class_<Network>(m, "Network")
      .def(py::init(&make), py::arg("arrays"), py::arg("places"), py::arg("slope"), py::arg("instructions"), py::arg("threads"))
      .def("run", [](Network& n, const std::vector<const Prepared*>& s, const Array& q) { return run(n, s, q); }, py::arg("supports"), py::arg("queries"))
      .def("loops", &loops, py::arg("supports"), py::arg("queries"))
      .def("run_with_constants", &run_with_constants, py::arg("supports"), py::arg("queries"))
      .def_property_readonly("threads", &Network::threads)
      .def_property_readonly("instructions", [](const Network& n) { return std::string(n.kernels->name); });
  add_static(m);
  add_training(m);
}
