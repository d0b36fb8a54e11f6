// The Python module universeg_rt._native: arrays in, arrays out; the interpreter's lock is let go while it works.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "network.h"
#include "training.h"

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

// ---- training (training/winograd.py)

// The pool of the last number of threads; one convolution at a time.
std::mutex training_mutex;
std::unique_ptr<universeg::Pool> training_pool;

universeg::Pool& pool_of(int threads) {
  if (threads < 1) throw py::value_error("threads must be positive");
  if (!training_pool || training_pool->threads() != threads) training_pool = std::make_unique<universeg::Pool>(threads);
  return *training_pool;
}

universeg::Maps maps(const Array& x, int block) {
  if (x.ndim() != 4 || x.shape(3) < block || x.shape(3) % block || !x.size())
    throw py::value_error("maps are (N,H,W,C), C a multiple of " + std::to_string(block));
  if (reinterpret_cast<uintptr_t>(x.data()) % 64) throw py::value_error("maps are aligned to 64 bytes");
  return {x.data(), (int)x.shape(0), (int)x.shape(1), (int)x.shape(2), (int)x.shape(3)};
}

void convolve(const Array& x, const Array& weights, const std::optional<Array>& bias, py::array_t<float, py::array::c_style>& out, int threads) {
  const auto* kernels = universeg::choose_kernels("auto");
  const auto in = maps(x, kernels->block), to = maps(out, kernels->block);
  if (to.count != in.count || to.height != in.height || to.width != in.width) throw py::value_error("out is of another size than x");
  if (weights.size() != 36L * in.channels * to.channels || (bias && bias->size() != to.channels))
    throw py::value_error("weights are (36,O/block,I,block), bias is (O,)");
  maps(weights, kernels->block);
  const float *w = weights.data(), *b = bias ? bias->data() : nullptr;
  float* y = out.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<std::mutex> lock(training_mutex);
  universeg::convolve(*kernels, pool_of(threads), in, w, to.channels, b, y);
}

py::array_t<float> convolve_gradient(const Array& x, const Array& gradient, int threads) {
  const auto* kernels = universeg::choose_kernels("auto");
  const auto in = maps(x, kernels->block), dy = maps(gradient, kernels->block);
  if (dy.count != in.count || dy.height != in.height || dy.width != in.width) throw py::value_error("x and gradient are of one size");
  py::array_t<float> out({36, in.channels, dy.channels});
  float* sums = out.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<std::mutex> lock(training_mutex);
  universeg::convolve_gradient(*kernels, pool_of(threads), in, dy, sums);
  return out;
}

// images (T,S,2,H,W), weights (9,2,25,O), add (T,Q,H,W,O), entry_weights (T,Q,S): calls body(maps of a query, its number).
template <typename Body>
void each_query(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope, const Body& body) {
  const auto* kernels = universeg::choose_kernels("auto");
  const bool fit = images.ndim() == 5 && add.ndim() == 5 && entry_weights.ndim() == 3 && weights.ndim() == 4 && images.shape(2) == 2 &&
                   images.shape(0) == add.shape(0) && images.shape(3) == add.shape(2) && images.shape(4) == add.shape(3) &&
                   entry_weights.shape(0) == add.shape(0) && entry_weights.shape(1) == add.shape(1) &&
                   entry_weights.shape(2) == images.shape(1) && weights.shape(0) == 9 && weights.shape(1) == 2 && weights.shape(2) == 25 &&
                   weights.shape(3) == add.shape(4);
  if (!fit || add.shape(4) % kernels->block || add.shape(2) % 2 || add.shape(3) % 2 || add.shape(2) < 4 || add.shape(3) < 4)
    throw py::value_error("images are (T,S,2,H,W), weights (9,2,25,O), add (T,Q,H,W,O), entry_weights (T,Q,S), H and W even");
  for (const Array* x : {&weights, &add})
    if (reinterpret_cast<uintptr_t>(x->data()) % 64) throw py::value_error("maps are aligned to 64 bytes");
  const long queries = add.shape(1), entries = images.shape(1), size = add.shape(2) * add.shape(3), outputs = add.shape(4);
  for (long i = 0; i < add.shape(0) * queries; ++i)
    body(*kernels, universeg::FirstMaps{weights.data(), images.data() + i / queries * entries * 2 * size, add.data() + i * size * outputs,
                                        entry_weights.data() + i * entries, (int)entries, (int)add.shape(2), (int)add.shape(3),
                                        (int)outputs, slope}, i);
}

void check_first(const Array& x, long size) {
  if (x.size() != size || reinterpret_cast<uintptr_t>(x.data()) % 64) throw py::value_error("a map has another size, or is not aligned to 64 bytes");
}

using Out = py::array_t<float, py::array::c_style>;

void first_forward(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope, Out& pooled,
                   Out& mean, int threads) {
  check_first(mean, add.size());
  check_first(pooled, add.size() * images.shape(1) / 4);
  float *p = pooled.mutable_data(), *m = mean.mutable_data();
  py::gil_scoped_release release;
  std::lock_guard<std::mutex> lock(training_mutex);
  each_query(images, weights, add, entry_weights, slope, [&](const universeg::Kernels& k, const universeg::FirstMaps& f, long i) {
    const long size = (long)f.height * f.width * f.outputs;
    universeg::first_forward(k, pool_of(threads), f, p + i * f.entries * (size / 4), m + i * size);
  });
}

Out first_backward(const Array& images, const Array& weights, const Array& add, const Array& entry_weights, float slope,
                   const Array& pooled, const Array& mean, Out& add_gradient, int threads) {
  check_first(mean, add.size());
  check_first(add_gradient, add.size());
  check_first(pooled, add.size() * images.shape(1) / 4);
  Out sums({9, 2, 25, (int)weights.shape(3)});
  float *a = add_gradient.mutable_data(), *s = sums.mutable_data();
  std::fill_n(s, sums.size(), 0.f);
  {
    py::gil_scoped_release release;
    std::lock_guard<std::mutex> lock(training_mutex);
    each_query(images, weights, add, entry_weights, slope, [&](const universeg::Kernels& k, const universeg::FirstMaps& f, long i) {
      const long size = (long)f.height * f.width * f.outputs;
      universeg::first_backward(k, pool_of(threads), f, pooled.data() + i * f.entries * (size / 4), mean.data() + i * size, a + i * size, s);
    });
  }
  return sums;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The folded network on the CPU in native code; use it through universeg_rt.runners.native.";
  m.def("available", &universeg::available_kernels, "Names of the kernels that run on this processor, the fastest first.");
  m.def("block", [] { return universeg::choose_kernels("auto")->block; }, "Channels of convolve() are multiples of this.");
  m.def("convolve", &convolve, py::arg("x"), py::arg("weights"), py::arg("bias"), py::arg("out"), py::arg("threads"),
        "3x3 convolution of (N,H,W,I) by transformed weights (36,O/block,I,block) into out (N,H,W,O).");
  m.def("convolve_gradient", &convolve_gradient, py::arg("x"), py::arg("gradient"), py::arg("threads"),
        "The transformed weights' gradient (36,I,O) of convolve(), from x (N,H,W,I) and out's gradient.");
  m.def("first_forward", &first_forward, py::arg("images"), py::arg("weights"), py::arg("add"), py::arg("entry_weights"), py::arg("slope"),
        py::arg("pooled"), py::arg("mean"), py::arg("threads"),
        "The first block's support branch into pooled (T,Q,S,H/2,W/2,O) and mean (T,Q,H,W,O).");
  m.def("first_backward", &first_backward, py::arg("images"), py::arg("weights"), py::arg("add"), py::arg("entry_weights"), py::arg("slope"),
        py::arg("pooled"), py::arg("mean"), py::arg("add_gradient"), py::arg("threads"),
        "From both results' gradients to add's (written) and the weights' (9,2,25,O).");
  m.def("prepare", &prepare, py::arg("entries"), py::arg("weights"));
  py::class_<Prepared>(m, "Prepared");
  py::class_<Network>(m, "Network")
      .def(py::init(&make), py::arg("arrays"), py::arg("encoder"), py::arg("decoder"), py::arg("slope"), py::arg("instructions"),
           py::arg("threads"))
      .def("run", &run, py::arg("supports"), py::arg("query"))
      .def_property_readonly("instructions", [](const Network& n) { return std::string(n.kernels->name); });
}
