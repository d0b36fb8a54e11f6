// The Python module universeg_rt._native: arrays in, arrays out; the interpreter's lock is let go while it works.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "network.h"

namespace py = pybind11;
using universeg::Block;
using universeg::Conv;
using universeg::Network;
using Array = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Prepared = Network::Prepared;

namespace {

Array array(const py::dict& arrays, const std::string& name, std::vector<py::ssize_t> shape) {
  if (!arrays.contains(name.c_str())) throw py::value_error("no array " + name);
  Array out = arrays[name.c_str()].cast<Array>();
  std::vector<py::ssize_t> given(out.shape(), out.shape() + out.ndim());
  if (given != shape) throw py::value_error("array " + name + " has another shape than the network needs");
  return out;
}

// arrays: for block i `i.cross`, `i.target`, `i.support` with `.weight` (out,in,3,3) and `.bias` (out,), `first` (9,2,5,5,out) and
// `head.weight` (in,), `head.bias` (1,).
std::unique_ptr<Network> make(const py::dict& arrays, const std::vector<int>& encoder, const std::vector<int>& decoder, float slope,
                              const std::string& instructions, int threads) {
  const int n = (int)encoder.size();
  if (n < 2 || (int)decoder.size() != n - 1) throw py::value_error("a network has one decoder stage less than encoder stages");
  for (int features : encoder)
    if (features < 1 || features > 512) throw py::value_error("a stage has 1 to 512 features");
  for (int features : decoder)
    if (features < 1 || features > 512) throw py::value_error("a stage has 1 to 512 features");
  if (threads < 1) throw py::value_error("threads must be positive");
  const auto* kernels = universeg::choose_kernels(instructions);
  if (!kernels) throw py::value_error("no kernels " + instructions + " for this processor");
  std::vector<Array> keep;
  std::vector<Block> blocks;
  auto conv = [&](const std::string& name, int outputs, int inputs) {
    keep.push_back(array(arrays, name + ".weight", {outputs, inputs, 3, 3}));
    const float* weight = keep.back().data();
    keep.push_back(array(arrays, name + ".bias", {outputs}));
    return Conv{weight, keep.back().data(), outputs, inputs};
  };
  for (int i = 0; i < 2 * n - 1; ++i) {
    const std::string name = std::to_string(i);
    const int features = i < n ? encoder[i] : decoder[i - n];
    int query = i == 0 ? 1 : i <= n ? encoder[i - 1] : decoder[i - n - 1], support = i == 0 ? 2 : query;
    if (i >= n) query += encoder[2 * n - 2 - i], support = query;
    Block block{};
    block.query_channels = query;
    block.cross = conv(name + ".cross", features, query + support);
    block.target = conv(name + ".target", features, features);
    if (i < 2 * n - 2) block.support = conv(name + ".support", features, features);
    if (i == 0) {
      keep.push_back(array(arrays, "first", {9, 2, 5, 5, features}));
      block.first = keep.back().data();
    }
    blocks.push_back(block);
  }
  keep.push_back(array(arrays, "head.weight", {decoder.back()}));
  const float* head = keep.back().data();
  keep.push_back(array(arrays, "head.bias", {1}));
  return std::make_unique<Network>(blocks, n, head, keep.back().data()[0], slope, kernels, threads);
}

std::shared_ptr<Prepared> prepare(const Network& network, const Array& entries, const Array& weights) {
  if (entries.ndim() != 4 || entries.shape(1) != 2 || entries.shape(0) < 1) throw py::value_error("entries are (S,2,H,W)");
  if (weights.ndim() != 1 || weights.shape(0) != entries.shape(0)) throw py::value_error("weights are (S,)");
  const int height = (int)entries.shape(2), width = (int)entries.shape(3);
  if (height < 8 || width < 8 || height % 2 || width % 2) throw py::value_error("height and width are even and at least 8");
  py::gil_scoped_release release;
  return network.prepare(entries.data(), weights.data(), (int)entries.shape(0), height, width);
}

py::array_t<float> run(Network& network, const std::vector<std::shared_ptr<Prepared>>& supports, const Array& query) {
  if (supports.empty()) throw py::value_error("no support");
  std::vector<const Prepared*> sets;
  for (const auto& s : supports) {
    if (!s || query.ndim() != 2 || query.shape(0) != s->height || query.shape(1) != s->width)
      throw py::value_error("the query and every support have one size");
    sets.push_back(s.get());
  }
  py::array_t<float> out(std::vector<py::ssize_t>{(py::ssize_t)sets.size(), query.shape(0), query.shape(1)});
  float* logits = out.mutable_data();
  {
    py::gil_scoped_release release;
    network.run(sets, query.data(), logits);
  }
  return out;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The folded network on the CPU in native code; use it through universeg_rt.runners.native.";
  m.def("available", &universeg::available_kernels, "Names of the kernels that run on this processor, the fastest first.");
  py::class_<Prepared, std::shared_ptr<Prepared>>(m, "Prepared");
  py::class_<Network>(m, "Network")
      .def(py::init(&make), py::arg("arrays"), py::arg("encoder"), py::arg("decoder"), py::arg("slope"), py::arg("instructions"),
           py::arg("threads"))
      .def("prepare", &prepare, py::arg("entries"), py::arg("weights"))
      .def("run", &run, py::arg("supports"), py::arg("query"))
      .def_property_readonly("instructions", [](const Network& n) { return std::string(n.kernels->name); });
}
