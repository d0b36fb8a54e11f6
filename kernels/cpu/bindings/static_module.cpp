// The network of a frozen task for the Python module universeg_rt._native.
#include "arguments.h"
#include "static_network.h"

using universeg::Block;
using universeg::StaticBlock;
using universeg::StaticNetwork;

namespace {

// A task's constant maps, and the size of its images.
struct Constants {
  StaticNetwork::Constants maps;
  int height, width;
  const StaticNetwork* network;  // whose layout they have
};

// arrays: for each block but the first `i.query.weight` (out,in,3,3) and `i.target.weight` (out,out,3,3); `first` (9,2,5,5,out), the
// first block's two convolutions composed; `head.weight` (in,), `head.bias` (1,).
std::unique_ptr<StaticNetwork> make(const py::dict& arrays, const std::vector<Place>& places, float slope,
                                    const std::string& instructions, int threads) {
  check(places);
  if (threads < 1) throw py::value_error("threads must be positive");
  std::vector<Array> keep;
  std::vector<StaticBlock> blocks;
  std::vector<Block> costs;  // by which the kernels are chosen
  auto conv = [&](const std::string& name, int outputs, int inputs) {
    keep.push_back(array(arrays, name + ".weight", {outputs, inputs, 3, 3}));
    return universeg::Conv{keep.back().data(), nullptr, outputs, inputs};
  };
  for (int i = 0; i < (int)places.size(); ++i) {
    const auto& [features, query, support, level, sources, halved] = places[i];
    StaticBlock block{};
    block.level = level, block.sources = sources, block.halved = halved;
    if (i == 0) {
      keep.push_back(array(arrays, "first", {9, 2, 5, 5, features}));
      block.first = keep.back().data();
      block.query.outputs = block.target.outputs = block.target.inputs = features, block.query.inputs = query;
    } else {
      block.query = conv(std::to_string(i) + ".query", features, query);
      block.target = conv(std::to_string(i) + ".target", features, features);
    }
    blocks.push_back(block);
    Block cost{};
    cost.cross = block.query, cost.target = cost.support = block.target;
    cost.query_channels = query, cost.level = level, cost.sources = sources, cost.halved = halved;
    costs.push_back(cost);
  }
  keep.push_back(array(arrays, "head.weight", {std::get<0>(places.back())}));
  const float* head = keep.back().data();
  keep.push_back(array(arrays, "head.bias", {1}));
  return std::make_unique<StaticNetwork>(blocks, head, keep.back().data()[0], slope, kernels_for(costs, instructions), threads);
}

// maps: (features, height >> level, width >> level) of each block.
std::unique_ptr<Constants> constants(const StaticNetwork& network, const std::vector<Array>& maps) {
  const auto& outputs = network.outputs();
  if (maps.size() != outputs.size() || maps[0].ndim() != 3) throw py::value_error("constants are (C,H,W), one a block");
  const int height = (int)maps[0].shape(1), width = (int)maps[0].shape(2);
  std::vector<const float*> data;
  for (size_t i = 0; i < maps.size(); ++i) {
    const auto& [features, level] = outputs[i];
    const int multiple = 1 << level;
    if (maps[i].ndim() != 3 || maps[i].shape(0) != features || height < 8 || width < 8 || height % multiple || width % multiple ||
        maps[i].shape(1) != height >> level || maps[i].shape(2) != width >> level)
      throw py::value_error("constant " + std::to_string(i) + " does not fit the network at " + std::to_string(height) + "x" +
                            std::to_string(width));
    data.push_back(maps[i].data());
  }
  return std::make_unique<Constants>(Constants{network.constants(data, height, width), height, width, &network});
}

py::array_t<float> run(StaticNetwork& network, const Constants& constants, const Array& queries,
                       std::vector<universeg::Loop>* record = nullptr) {
  if (constants.network != &network) throw py::value_error("the constants are another network's");
  if (queries.ndim() != 3 || queries.shape(1) != constants.height || queries.shape(2) != constants.width)
    throw py::value_error("queries are (N,H,W) of the constants' size");
  py::array_t<float> out(std::vector<py::ssize_t>{queries.shape(0), queries.shape(1), queries.shape(2)});
  float* logits = out.mutable_data();
  {
    py::gil_scoped_release release;
    network.run(constants.maps, queries.data(), (int)queries.shape(0), logits, record);
  }
  return out;
}

// As Network's.
Loops loops(StaticNetwork& network, const Constants& constants, const Array& queries) {
  std::vector<universeg::Loop> record;
  run(network, constants, queries, &record);
  return listed(record);
}

}  // namespace

void add_static(py::module_& m) {
  py::class_<Constants>(m, "Constants");
  py::class_<StaticNetwork>(m, "StaticNetwork")
      .def(py::init(&make), py::arg("arrays"), py::arg("places"), py::arg("slope"), py::arg("instructions"), py::arg("threads"))
      .def("constants", &constants, py::arg("maps"))
      .def("run", [](StaticNetwork& n, const Constants& c, const Array& q) { return run(n, c, q); }, py::arg("constants"), py::arg("queries"))
      .def("loops", &loops, py::arg("constants"), py::arg("queries"))
      .def_property_readonly("threads", &StaticNetwork::threads)
      .def_property_readonly("instructions", [](const StaticNetwork& n) { return std::string(n.kernels->name); });
}
